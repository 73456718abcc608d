"""What a worker does before it times."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hasten.engine import worker
from hasten.engine.frames import Frame
from hasten.engine.process import SETTLE_S
from hasten.engine.worker import Worker


class Timed:
    """A session whose runs take so many seconds of a clock of its own."""

    def __init__(self, seconds: float) -> None:
        self.now = 0.0
        self.runs: list[int] = []
        self._seconds = seconds

    def run(self, inputs: Any) -> dict[str, Any]:
        self.runs.append(inputs)
        self.now += self._seconds
        return {}


def timed(monkeypatch: pytest.MonkeyPatch, seconds: float, slots: list[int], warmup: int) -> tuple[list[int], Frame]:
    """The samples that were run, in order, and the answer."""
    session = Timed(seconds)
    clock = SimpleNamespace(perf_counter=lambda: session.now, perf_counter_ns=lambda: round(session.now * 1e9))
    monkeypatch.setattr(worker, "time", clock)
    one = Worker()
    monkeypatch.setattr(one, "_sessions", {"": session})
    monkeypatch.setattr(one, "_samples", {slot: slot for slot in slots})
    return session.runs, one.answer(Frame("time", {"slots": slots, "warmup": warmup}))


def test_short_runs_go_untimed_until_threads_have_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    runs, answer = timed(monkeypatch, 0.001, [5, 6, 7, 8], 3)
    untimed = runs[: len(runs) - 4]
    assert len(untimed) == pytest.approx(SETTLE_S / 0.001, abs=1)
    assert untimed[:6] == [5, 6, 7, 8, 5, 6]
    assert runs[-4:] == [5, 6, 7, 8]
    assert answer.args["elapsed_ns"] == pytest.approx([1e6] * 4)


def test_long_runs_go_untimed_as_often_as_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timed(monkeypatch, 0.020, [5, 6, 7, 8], 3)[0] == [5, 6, 7, 5, 6, 7, 8]


@pytest.mark.parametrize(("slots", "warmup"), [([5, 6], 0), ([], 3)])
def test_without_untimed_runs_the_clock_starts_at_once(
    monkeypatch: pytest.MonkeyPatch, slots: list[int], warmup: int
) -> None:
    assert timed(monkeypatch, 0.001, slots, warmup)[0] == slots
