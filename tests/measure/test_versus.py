"""Two targets in turn: paired by round, on the same samples, on a machine that is asked to be quiet."""

from __future__ import annotations

import pytest

from hasten.engine.process import SETTLE_S
from hasten.measure.contention import Watch
from hasten.measure.traffic import Pace
from hasten.measure.versus import Comparison, compare_targets
from hasten.testing import ManualClock


class Side:
    """Takes `ms` for each call, by a clock that is moved by hand."""

    def __init__(self, clock: ManualClock, ms: float) -> None:
        self.asked: list[int] = []
        self.rests = 0
        self._clock = clock
        self._ms = ms

    def rest(self) -> None:
        self.rests += 1

    def call(self, index: int) -> None:
        self.asked.append(index)
        self._clock.advance(self._ms * (1 + index % 7 / 100) / 1e3)


def compare(a_ms: float, b_ms: float, watch: Watch, rounds: int = 12) -> tuple[Comparison, Side, Side]:
    clock = ManualClock()
    a, b = Side(clock, a_ms), Side(clock, b_ms)
    pace = Pace(now=clock.now, pause=clock.advance)
    return compare_targets(a, b, rounds=rounds, seed=0, watch=watch, tick=lambda done: None, pace=pace), a, b


def quiet() -> Watch:
    return Watch(0.0, probe=lambda: 99.0)


def test_a_side_of_half_the_time_is_twice_as_fast_and_swapping_sides_inverts_it() -> None:
    found, _, _ = compare(5, 10, quiet())
    assert found.ratio.value == pytest.approx(2.0)
    assert (found.rounds, found.repeated, found.contended) == (12, 0, 0)
    assert compare(10, 5, quiet())[0].ratio.value == pytest.approx(0.5)


def test_both_sides_get_the_same_samples() -> None:
    _, a, b = compare(5, 10, quiet())
    assert a.asked == b.asked


def test_short_calls_go_untimed_until_threads_have_settled_and_the_same_samples_are_timed() -> None:
    found, a, b = compare(1, 2, quiet(), rounds=12)
    assert found.ratio.value == pytest.approx(2.0)
    assert len(a.asked) / 12 - 5 == pytest.approx(SETTLE_S / 0.001, abs=1)
    assert len(b.asked) / 12 - 5 == pytest.approx(SETTLE_S / 0.002, abs=1)
    assert a.asked[-5:] == b.asked[-5:]


def test_calls_that_take_next_to_nothing_do_not_go_on_for_ever() -> None:
    _, a, _ = compare(0.001, 10, quiet(), rounds=12)
    assert len(a.asked) == 12 * (100 + 5)


def test_each_side_rests_after_its_turn() -> None:
    _, a, b = compare(5, 10, quiet(), rounds=12)
    assert (a.rests, b.rests) == (12, 12)


def test_a_machine_that_never_gets_quiet_is_measured_and_said() -> None:
    found, a, _ = compare(5, 10, Watch(0.0, probe=lambda: 0.1))
    assert (found.rounds, found.repeated, found.contended) == (12, 0, 12)
    assert "12 of 12 rounds on a contended machine" in (found.ratio.method or "")
    assert len(a.asked) == 12 * 8


def test_rounds_are_extended_until_enough_of_them_were_quiet() -> None:
    class Moody(Watch):
        """Every third round begins on a contended machine although there is patience left."""

        def __init__(self) -> None:
            super().__init__(1.0)
            self._round = 0

        def round_is_quiet(self) -> bool:
            self._round += 1
            return self._round % 3 != 0

    found, a, _ = compare(5, 10, Moody())
    assert (found.rounds, found.repeated, found.contended) == (12, 5, 0)
    assert len(a.asked) == 17 * 8
    assert "contended" not in (found.ratio.method or "")
