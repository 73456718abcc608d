"""What `make bench-serve` reads and concludes, told without any server."""

from __future__ import annotations

import pytest

from serving.cases import CASES, COMPILED
from serving.load import Burst, milliseconds, read_h2load, read_wrk
from serving.verdict import Race, RealRace

WRK = """\
  Latency Distribution
     50%  950.00us
     75%    1.20ms
     90%    2.00ms
     99%   12.30ms
  1000 requests in 2.00s, 1.00MB read
Requests/sec:    500.25
"""
H2LOAD = """\
finished in 1.00s, 42.50 req/s, 1.00KB/s
requests: 3 total, 3 started, 3 done, 3 succeeded, 0 failed, 0 errored, 0 timeout
"""


def test_wrk_s_words_become_a_burst() -> None:
    burst, count = read_wrk(WRK)
    assert (burst.rate, burst.p99_ms, count) == (500.25, 12.3, 1000)
    assert burst.p50_ms == pytest.approx(0.95)


@pytest.mark.parametrize("trouble", ["  Non-2xx or 3xx responses: 3\n", "  Socket errors: connect 0, read 3\n"])
def test_a_refusal_is_no_speed(trouble: str) -> None:
    with pytest.raises(SystemExit):
        read_wrk(WRK + trouble)


def test_h2load_s_log_gives_percentiles() -> None:
    burst, count = read_h2load(H2LOAD, "".join(f"{number}\t200\t{number * 1000}\n" for number in range(1, 1002)))
    assert (burst.rate, burst.p50_ms, count) == (42.5, 501.0, 3)
    with pytest.raises(SystemExit):
        read_h2load(H2LOAD.replace("0 failed", "1 failed"), "")


@pytest.mark.parametrize(("words", "ms"), [("950.00us", 0.95), ("1.5ms", 1.5), ("2s", 2000.0), ("1m", 60000.0)])
def test_durations_are_milliseconds(words: str, ms: float) -> None:
    assert milliseconds(words) == pytest.approx(ms)


def race(ours: float, theirs: float) -> Race:
    one = Race(CASES[0])
    for round_ in range(8):
        drift = 1 + round_ / 10
        one.found["hasten"].append(Burst(ours * drift, 1.0, 2.0, 10.0))
        one.found["triton"].append(Burst(theirs * drift, 2.0, 2.0, 30.0))
        one.found["slow"].append(Burst(1.0, 9.0, 9.0, 90.0))
    return one


def test_the_bar_is_held_against_the_best_peer_and_more_is_better_for_rates_only() -> None:
    assert race(210, 100).met
    assert not race(190, 100).met
    assert race(210, 100).best == "triton"
    assert race(210, 100).ratio("triton").value == pytest.approx(2.1)
    assert race(210, 100).ratio("triton", "p50_ms").value == pytest.approx(2.0)
    assert race(210, 100).ratio("triton", "cpu_us").value == pytest.approx(3.0)


def test_what_is_our_own_is_no_peer_and_can_be_compared_apart() -> None:
    one = race(210, 100)
    one.found[COMPILED] = [Burst(2 * burst.rate, 0.5, 1.0, 5.0) for burst in one.found["hasten"]]
    assert one.best == "triton"
    assert one.ratio("triton", ours=COMPILED).value == pytest.approx(4.2)


def test_the_compiled_path_is_judged_where_it_takes_part() -> None:
    one = race(150, 100)
    one.found[COMPILED] = [Burst(1.4 * burst.rate, 0.5, 1.0, 5.0) for burst in one.found["hasten"]]
    assert one.met
    assert not one.reaches("hasten")
    assert str(one).startswith(f"{CASES[0].name}: {COMPILED} 2.10")


@pytest.mark.parametrize(("p99_ms", "met"), [(2.0, True), (2.5, False)])
def test_who_answers_more_but_later_than_the_best_peer_has_not_met_the_bar(p99_ms: float, met: bool) -> None:
    one = race(210, 100)
    one.found["hasten"] = [Burst(burst.rate, 1.0, p99_ms, 10.0) for burst in one.found["hasten"]]
    assert one.met is met


@pytest.mark.parametrize(("server", "met"), [(94.0, True), (92.0, False)])
def test_a_real_model_is_held_against_its_engine(server: float, met: bool) -> None:
    assert RealRace("m", {}, server=[server] * 8, engine=[100.0] * 8).met is met
    assert RealRace("m", {}, server=[90.0] * 8, engine=[100.0] * 8, compiled=[server] * 8).met is met
