"""What `make bench-overload` draws, reads and concludes, told without any server but one of a few lines."""

from __future__ import annotations

import argparse
import dataclasses
import socket
import threading
from collections.abc import Generator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from hasten.serve.admit import REASONS
from hasten.spec.signature import Signature
from hasten.spec.tensor import TensorSpec
from overloading import bare
from overloading.arriving import KINDS, LEAD_IN_S, Arrivals, drawn, mmpp
from overloading.lone import asker
from overloading.outcome import Outcome, accuracy, outcome, recovery_s, steady
from overloading.page import page
from overloading.plots import draw
from overloading.sender import Connection, Log, Message, _Loop
from overloading.subjects import NAMES, lanes_of
from overloading.verdict import ADAPTIVE, BARE, HASTEN, Bar, Cell, Found, Lone, Setting, bars
from servers.triton_onnx import config

DEADLINES = (0.1, 0.2, 10.0)


@pytest.mark.parametrize("kind", KINDS)
def test_arrivals_come_at_the_rate_asked_for_in_the_span_that_is_judged(kind: str) -> None:
    given = drawn(kind, 2.0, 100.0, 300.0, (1, 1, 2), seed=3)
    begin, end = given.loaded
    rate = ((given.due >= begin) & (given.due < end)).sum() / (end - begin)
    assert rate == pytest.approx(200, rel=0.15)
    assert np.all(np.diff(given.due) >= 0)
    assert -LEAD_IN_S < given.due[0] < 0
    assert np.bincount(given.lanes) / len(given.lanes) == pytest.approx([0.25, 0.25, 0.5], abs=0.02)


def test_a_step_run_offers_half_of_the_capacity_before_and_after() -> None:
    given = drawn("step", 3.0, 100.0, 90.0, (1,), seed=1)
    assert given.loaded == (30.0, 60.0)
    counts = np.histogram(given.due, [-LEAD_IN_S, 0, 30, 60, 90])[0] / [LEAD_IN_S, 30, 30, 30]
    assert counts == pytest.approx([50, 50, 300, 50], rel=0.35)


def test_equal_seeds_give_equal_arrivals() -> None:
    assert np.array_equal(mmpp(50, 10, 7, 1), mmpp(50, 10, 7, 1))
    assert not np.array_equal(mmpp(50, 10, 7, 1), mmpp(50, 10, 8, 1))


def test_a_modulated_process_is_busy_at_the_same_times_at_every_load() -> None:
    low, high = (np.histogram(mmpp(rate, 60, seed, 5), 30, (0, 60))[0] for rate, seed in ((500, 1), (1500, 2)))
    assert np.corrcoef(low, high)[0, 1] > 0.95


def log(rows: Sequence[tuple[float, float, float, int, str]]) -> Log:
    """Rows of due, sent, done, status and word."""
    words = ("", *dict.fromkeys(row[4] for row in rows if row[4]))
    due, sent, done, status, text = zip(*rows, strict=True)
    columns = [np.array(column, float) for column in (due, sent, done)]
    return Log(*columns, np.array(status), np.array([words.index(one) for one in text]), words)


LATE = REASONS["would be late"].message
ROWS = [
    (-0.05, -0.05, 0.04, 200, "f32"),  # of the lead-in: its answer came in the span, it was not due there
    (0.1, 0.1, 0.15, 200, "f32"),
    (0.2, 0.2, 0.45, 200, "int8"),  # too late for its lane
    (0.3, 0.301, 0.303, 503, LATE),
    (0.4, 0.4, 0.9, 503, REASONS["too old"].message),
    (0.5, 0.5, float("nan"), 0, ""),
    (0.9, 0.9, 1.05, 200, "f32"),  # in time, and after the span
]
GIVEN = Arrivals(due=np.array([row[0] for row in ROWS]), lanes=np.array([0, 0, 1, 0, 2, 2, 1]), loaded=(0.0, 1.0))


def test_a_request_is_good_only_where_its_answer_came_within_its_lane_s_deadline() -> None:
    found = outcome(GIVEN, log(ROWS), DEADLINES)
    assert (found.due, found.good, found.answers) == ((2, 2, 2), (1, 1, 0), (2, 1, 0))
    assert (found.goodput, found.throughput, found.offered) == (2.0, 3.0, 6.0)
    assert found.attainment(0) == 0.5
    assert found.attainment() == pytest.approx(2 / 6)
    assert found.broken == 1
    assert found.variants == {"f32": 2, "int8": 1}


def test_only_refusals_on_arrival_are_timed_and_from_when_they_were_sent() -> None:
    found = outcome(GIVEN, log(ROWS), DEADLINES)
    assert found.refused_ms == pytest.approx([2.0])
    assert found.refusals == {LATE: 1, REASONS["too old"].message: 1}


def test_a_rate_is_counted_from_the_end_of_a_batch_to_that_of_another() -> None:
    ends = np.repeat([0.25, 0.5, 0.75, 1.0], 8)
    assert steady(ends + np.tile(np.arange(8) * 1e-4, 4)) == pytest.approx(32.0, rel=0.01)
    assert steady(ends[:8]) == steady(np.empty(0)) == 0.0


def test_effective_accuracy_weighs_by_answers() -> None:
    assert accuracy({"a": 3, "b": 1}, {"a": 0.9, "b": 0.7}) == pytest.approx(0.85)
    assert np.isnan(accuracy({}, {}))


def test_recovery_lasts_to_the_last_answer_of_a_lesser_variant() -> None:
    rows = [(1.1, 1.1, 1.5, 200, "int8"), (3.0, 3.0, 3.5, 200, "int8"), (4.0, 4.0, 4.1, 200, "f32")]
    given = Arrivals(due=np.array([1.1, 3.0, 4.0]), lanes=np.zeros(3, int), loaded=(1.0, 2.0))
    assert recovery_s(given, log(rows), "f32") == pytest.approx(1.5)
    assert recovery_s(given, log(rows[2:]), "f32") is None


def ran(
    goodput: float, *, offered: float = 300.0, due: int = 1000, good: int = 1000, refused_ms: Sequence[float] = ()
) -> Outcome:
    return Outcome(
        offered=offered,
        goodput=goodput,
        throughput=goodput,
        due=(due, due, due),
        good=(good, good, good),
        answers=(60, 30, 10),
        latency_p50_ms=1.0,
        latency_p99_ms=2.0,
        variants={"f32": 10},
        refusals={},
        refused_ms=np.array(refused_ms),
        broken=0,
        late_ms=0.1,
    )


def found_of(**changed: float) -> Found:
    """A model for which every bar is met, but for what is changed."""
    given = {
        "top": 99.0,
        "good": 1000,
        "refused": 2.0,
        "ladder": 995,
        "back": 9.9,
        "lone": 0.8,
        "own": 98.0,
        **changed,
    }
    found = Found("m", 100.0, 0.08, {"hasten": 100.0})
    found.runs[Cell("hasten", "poisson", 1.0)] = [ran(98.0)]
    found.runs[Cell("hasten", "poisson", 3.0)] = [ran(given["top"], refused_ms=[given["refused"]])]
    found.runs[Cell("hasten, ladder", "poisson", 1.5)] = [ran(150.0, good=int(given["ladder"]))]
    found.crowd["hasten"] = [ran(100.0, good=int(given["good"]))]
    found.accuracy, found.top_accuracy, found.recovery = [0.89], 0.9, [9.0, given["back"]]
    found.lone = [Lone(10.0, {HASTEN: given["lone"], BARE: 0.5})] * 3
    for setting, rate in ((ADAPTIVE, given["own"]), (Setting(1, 0.0), 60.0), (Setting(8, 5.0), 100.0)):
        found.batcher[setting, 3.0] = [rate] * 3
    return found


def missed(found: Found) -> list[Bar]:
    return [bar for bar in bars(found) if not bar.met]


def test_what_meets_every_bar_misses_none() -> None:
    assert not missed(found_of())


@pytest.mark.parametrize(
    ("changed", "bar"),
    [
        ({"top": 90.0}, "goodput at 3 x, poisson"),
        ({"good": 998}, "critical lane while background saturates"),
        ({"refused": 5.1}, "refusals, p99"),
        ({"ladder": 989}, "attainment with the ladder at 1.5 x, poisson"),
        ({"back": 10.1}, "back at the top variant after a step"),
        ({"lone": 1.1}, "a lone request, p50"),
        ({"own": 96.0}, "batcher at 3 x"),
    ],
)
def test_each_bar_is_missed_by_its_own_figure_only(changed: dict[str, float], bar: str) -> None:
    assert [one.name for one in missed(found_of(**changed))] == [bar]


def test_a_server_that_was_not_overloaded_shows_nothing() -> None:
    found = found_of()
    found.runs[Cell("hasten", "poisson", 3.0)] = [ran(99.0, offered=100.0, refused_ms=[2.0])]
    found.crowd["hasten"] = [ran(99.0, offered=100.0)]
    assert {bar.met for bar in missed(found)} == {None}
    assert [bar.name.partition(",")[0] for bar in missed(found)] == [
        "goodput at 3 x",
        "critical lane while background saturates",
        "background while it saturates",
    ]


def test_a_few_critical_requests_without_a_miss_prove_nothing() -> None:
    found = found_of()
    found.crowd["hasten"] = [ran(100.0, due=20, good=20)]
    assert [(bar.name, bar.met) for bar in missed(found)] == [("critical lane while background saturates", None)]


def test_what_was_not_measured_is_not_met() -> None:
    bare = Found("m", 100.0, 0.08)
    assert {bar.met for bar in bars(bare)} == {None}


def test_the_page_holds_every_bar_and_the_same_figures_give_the_same_drawings(tmp_path: Path) -> None:
    found = [found_of()]
    drawings = draw(found, tmp_path / "overload")
    first = [path.read_bytes() for path in drawings["m"]]
    assert first == [path.read_bytes() for path in draw(found, tmp_path / "overload")["m"]]
    given = argparse.Namespace(rounds=1, seconds=5.0, note="quiet", native=None, out=tmp_path / "overload.md")
    text = page(found, drawings, {}, given)
    assert all(bar.name in text for bar in bars(found[0]))
    assert "(overload/m-goodput.svg)" in text
    assert "**missed**" not in text
    assert "disturbed" not in text


def test_a_run_that_was_ended_early_still_gives_a_page(tmp_path: Path) -> None:
    bare = Found("m", 100.0, 0.08)
    bare.troubles.append("triton, round 1: triton did not start")
    bare.batcher[ADAPTIVE, 1.0] = [90.0]
    bare.batcher[Setting(8, 0.0), 0.5] = [50.0]
    given = argparse.Namespace(rounds=2, seconds=5.0, note="", native=None, out=tmp_path / "overload.md")
    text = page([bare], draw([bare], tmp_path), {}, given)
    assert "Not run: triton, round 1: triton did not start" in text
    assert {bar.met for bar in bars(bare)} == {None}


def test_a_ratio_over_rounds_says_how_far_they_were_apart() -> None:
    found = found_of()
    found.runs[Cell("hasten", "poisson", 1.0)] = [ran(100.0)] * 3
    found.runs[Cell("hasten", "poisson", 3.0)] = [ran(97.0), ran(98.0), ran(99.0)]
    [goodput] = [bar for bar in bars(found) if bar.name == "goodput at 3 x, poisson"]
    assert "(97.0% to 99.0% in 3 turns)" in goodput.found


def test_a_fixed_setting_is_judged_on_other_turns_than_made_it_the_best() -> None:
    """Two settings that are equal but for luck: the luckier of each turn would be 10 % ahead of what is as good."""
    found = found_of()
    found.batcher.clear()
    found.batcher[ADAPTIVE, 1.0] = [100.0] * 8
    found.batcher[Setting(1, 0.0), 1.0] = [110.0, 90.0] * 4
    found.batcher[Setting(8, 0.0), 1.0] = [90.0, 110.0] * 4
    [batcher] = [bar for bar in bars(found) if bar.name == "batcher at 1 x"]
    assert batcher.met
    assert "in 8 turns, of 1 rows, 0 ms and 8 rows, 0 ms" in batcher.found


def test_a_bar_that_the_interval_reaches_is_open_and_one_above_it_is_missed() -> None:
    found = found_of()
    found.batcher.clear()
    for load, own in ((1.0, [80.0, 112.0, 84.0, 108.0, 88.0, 96.0]), (2.0, [80.0, 81.0, 79.0, 80.5, 79.5, 80.0])):
        found.batcher[ADAPTIVE, load] = own
        found.batcher[Setting(8, 0.0), load] = [100.0, 101.0, 99.0, 100.5, 99.5, 100.0]
    judged = {bar.name: (bar.word, bar.met) for bar in bars(found)}
    assert judged["batcher at 1 x"] == ("open", None)
    assert judged["batcher at 2 x"] == ("missed", False)


def test_a_generator_that_was_late_is_told_of(tmp_path: Path) -> None:
    found = found_of()
    found.crowd["hasten"] = [dataclasses.replace(ran(100.0), late_ms=2.5)]
    given = argparse.Namespace(rounds=1, seconds=5.0, note="", native=None, out=tmp_path / "overload.md")
    assert "2.50 ms late" in page([found], draw([found], tmp_path), {}, given)


def test_triton_gets_the_lanes_as_priorities_and_refuses_when_a_batch_would_not_fit_any_more() -> None:
    spec = TensorSpec(name="x", dtype="FP32", shape=("batch", 3, "width"))
    words = config("m", Signature(inputs=(spec,), outputs=(spec,)), lanes_of(0.1), 0.1, 8)
    assert 'input [{ name: "x" data_type: TYPE_FP32 dims: [3, -1] }]' in words
    assert f"priority_levels: {len(NAMES)}" in words
    assert "key: 1 value { timeout_action: REJECT default_timeout_microseconds: 400000" in words
    assert "key: 3 value { timeout_action: REJECT default_timeout_microseconds: 5000000" in words


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        good = body == b"good"
        text = b'{"parameters":{"variant":"f32"}}' if good else b'{"error":"The queue is full."}'
        self.send_response(200 if good else 503)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Generator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_open_loop_writes_down_status_and_words_of_each_request(port: int) -> None:
    messages = [Message("/", {}, body).raw(port) for body in (b"good", b"bad")]
    loop = _Loop({"port": port, "callers": 0, "seconds": 0.0}, messages, [-0.01, 0.0, 0.0, 0.01], [0, 1, 0, 1])
    loop.run()
    assert loop.status == [200, 503, 200, 503]
    words = list(loop.words)
    assert [words[number] for number in loop.word] == [b"f32", b"The queue is full."] * 2
    assert all(due <= sent <= done for due, sent, done in zip(loop.due, loop.sent, loop.done, strict=True))


def test_the_closed_loop_sends_again_when_it_was_answered_and_on_the_same_connections(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = _Loop({"port": port, "callers": 2, "seconds": 0.05}, [Message("/", {}, b"good").raw(port)], [], [])
    opened: list[int] = []
    connect = loop._connect
    monkeypatch.setattr(loop, "_connect", lambda: opened.append(1) or connect())
    loop.run()
    assert len(opened) == 2
    assert len(loop.due) > 2
    assert set(loop.status) == {200}


def test_lone_requests_go_one_after_another_over_one_connection_and_are_all_answered(port: int) -> None:
    connection = Connection(port)
    with connection.socket:
        ask = asker(connection, Message("/", {}, b"good").raw(port))
        assert min(ask() for _ in range(3)) > 0
        with pytest.raises(SystemExit, match="503"):
            asker(connection, Message("/", {}, b"bad").raw(port))()


def test_a_lone_request_is_held_against_the_engine_and_names_who_else_was_asked() -> None:
    found = Found("m", 100.0, 0.08)
    found.lone = [Lone(10.0, {HASTEN: more, BARE: 0.5, "triton": 2.0}) for more in (0.7, 0.9, 1.6)]
    [bar] = [bar for bar in bars(found) if bar.name == "a lone request, p50"]
    assert bar.met
    assert bar.found.startswith("+0.90 ms (+0.70 to +1.60 in 3 launches): engine 10.00 ms")
    assert bar.found.endswith("behind a bare socket +0.50 ms, triton +2.00 ms")


def test_a_bare_socket_takes_a_request_that_comes_in_pieces() -> None:
    inputs = {"a": np.arange(3, dtype=np.int64), "b": np.ones((1, 2), np.float32)}
    body = b'{"inputs":[]}' + b"".join(array.tobytes() for array in inputs.values())
    head = b"POST /x HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
    # Of such sockets each piece is received by itself.
    here, there = socket.socketpair(type=socket.SOCK_SEQPACKET)
    room = bytearray(1000)
    with there:
        with here:
            for piece in (head[:30], head[30:] + body[:5], body[5:]):
                here.sendall(piece)
            size = bare.received(there, room)
        assert bare.received(there, bytearray(10)) == 0
    assert size == len(head) + len(body)
    taken = bare.inputs_in(memoryview(room)[:size], {name: np.empty_like(array) for name, array in inputs.items()})
    assert all(np.array_equal(taken[name], array) for name, array in inputs.items())


def test_a_bare_socket_sends_arrays_one_after_another() -> None:
    arrays = [np.arange(3, dtype=np.int64), np.ones((1, 2), np.float32)]
    here, there = socket.socketpair()
    with here, there:
        bare.answer(there, arrays)
        expected = b"HTTP/1.1 200 OK\r\ncontent-length: 32\r\n\r\n" + arrays[0].tobytes() + arrays[1].tobytes()
        assert here.recv(1000) == expected
