"""Calls under load, with callees that wait for events instead of time: who is sent off when, and what is logged."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import pytest

from hasten.errors import RequestError
from hasten.measure.load import parse_load
from hasten.measure.traffic import Pace, closed_loop, open_loop, run_load
from hasten.testing import ManualClock

# Far more than any of these tests needs: it ends one that hangs.
PATIENCE_S = 60.0


class Callee:
    """Calls what it is given; remembers the samples that were asked for."""

    def __init__(self, answer: Callable[[int], None] = lambda index: None) -> None:
        self.asked: list[int] = []
        self._answer = answer

    def rest(self) -> None:
        pass

    def call(self, index: int) -> None:
        self.asked.append(index)
        self._answer(index)


def by_hand(clock: ManualClock) -> Pace:
    """Time that passes only while it is waited for."""
    return Pace(now=clock.now, pause=clock.advance)


def test_an_open_loop_does_not_wait_for_answers() -> None:
    everyone_is_here = threading.Barrier(20)
    callee = Callee(lambda index: everyone_is_here.wait(PATIENCE_S) and None)
    calls = open_loop(callee, [i / 10 for i in range(20)], start=0.0, pace=by_hand(ManualClock()))
    assert all(call.done_s is not None and call.failure is None for call in calls)


def test_requests_are_due_when_the_schedule_says_and_sent_no_earlier() -> None:
    clock = ManualClock(100.0)
    calls = open_loop(Callee(), [0.0, 0.5, 2.0], start=100.0, pace=by_hand(clock))
    assert [call.due_s for call in calls] == [0.0, 0.5, 2.0]
    assert all(call.sent_s is not None and call.sent_s >= call.due_s for call in calls)


def test_with_too_few_callers_the_clock_of_waiting_requests_runs() -> None:
    clock, free = ManualClock(), threading.Event()

    def answer(index: int) -> None:
        if index == 0:
            free.wait(PATIENCE_S)

    def pause(seconds: float) -> None:
        clock.advance(seconds)
        if clock.now() >= 3.0:
            free.set()

    calls = open_loop(Callee(answer), [0.0, 1.0, 2.0, 3.0], start=0.0, callers=1, pace=Pace(now=clock.now, pause=pause))
    assert calls[1].sent_s == 3.0, "nobody was free before"
    assert calls[1].due_s == 1.0


def test_what_nobody_answered_or_sent_is_in_the_log_when_patience_ends() -> None:
    never = threading.Event()
    callee = Callee(lambda index: never.wait(PATIENCE_S) and None)
    calls = open_loop(callee, [0.0, 0.1, 0.2], start=0.0, callers=2, patience_s=0.0, pace=by_hand(ManualClock()))
    asked = len(callee.asked)
    never.set()
    assert [call.done_s for call in calls] == [None, None, None]
    assert calls[2].sent_s is None
    assert asked <= 2


def test_a_failed_request_is_written_down_by_kind_and_the_loop_goes_on() -> None:
    def answer(index: int) -> None:
        if index % 2:
            raise RequestError("shed", code="overloaded")

    calls = open_loop(Callee(answer), [i / 10 for i in range(6)], start=0.0, pace=by_hand(ManualClock()))
    assert [call.failure for call in calls] == [None, "overloaded"] * 3
    assert sum(call.error is not None for call in calls) == 1


def test_a_bug_in_a_callee_is_raised_and_not_counted_as_a_failure() -> None:
    def answer(index: int) -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        open_loop(Callee(answer), [0.0, 0.1], start=0.0, pace=by_hand(ManualClock()))
    with pytest.raises(KeyError, match="bug"):
        closed_loop(Callee(answer), 1, 1.0, pace=by_hand(ManualClock()))


def test_a_closed_loop_sends_the_next_request_when_the_last_is_answered() -> None:
    clock = ManualClock()
    calls = closed_loop(Callee(lambda index: clock.advance(0.25)), 1, 1.0, warmup_s=0.5, pace=by_hand(clock))
    assert [call.due_s for call in calls] == [-0.5, -0.25, 0.0, 0.25, 0.5, 0.75]
    assert all(call.sent_s == call.due_s for call in calls)


def test_callers_of_a_closed_loop_share_the_samples_out() -> None:
    together = threading.Barrier(3)
    clock = ManualClock()

    def answer(index: int) -> None:
        if together.wait(PATIENCE_S) == 0:
            clock.advance(1.0)
        together.wait(PATIENCE_S)

    callee = Callee(answer)
    closed_loop(callee, 3, 2.0, pace=by_hand(clock))
    assert sorted(callee.asked) == [0, 1, 2, 3, 4, 5]


def test_the_warm_up_of_an_open_loop_comes_before_the_measured_requests_and_is_left_out() -> None:
    def requests(warmup_s: float) -> tuple[int, int]:
        callee, clock = Callee(), ManualClock()
        result = run_load(callee, parse_load("poisson:50"), 4.0, warmup_s=warmup_s, seed=1, pace=by_hand(clock))
        return result.requests, len(callee.asked)

    measured, asked = requests(0.0)
    warmed, asked_more = requests(2.0)
    assert warmed == measured, "the same seed gives the same measured requests, whatever the warm-up"
    assert asked_more > asked + 50


def test_a_target_that_answers_nothing_raises_its_own_error() -> None:
    def answer(index: int) -> None:
        raise RequestError("gone", code="connection")

    with pytest.raises(RequestError, match="gone"):
        run_load(Callee(answer), parse_load("closed:1"), 1.0, pace=by_hand(ManualClock()))


@pytest.mark.parametrize("load", ["closed:1", "poisson:100"])
def test_the_collector_leaves_alone_what_lives_while_a_load_lasts(load: str) -> None:
    frozen: list[int] = []
    callee = Callee(lambda index: frozen.append(gc.get_freeze_count()))
    run_load(callee, parse_load(load), 0.05)
    # The first call is made before, and does not count.
    assert min(frozen[1:]) > 0
    assert gc.get_freeze_count() == 0
