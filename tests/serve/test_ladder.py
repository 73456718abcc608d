from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.serve.ladder import Ladder
from hasten.serve.policy import Lane, Policy, Rung

RUNGS = (
    Rung(variant="f32", speed=1.0, accuracy=0.90),
    Rung(variant="int8", speed=2.0, accuracy=0.89),
    Rung(variant="small", speed=4.0, accuracy=0.80),
)
COSTS = [1.0, 0.5, 0.25]
WINDOW_S = 0.5


class World:
    """Feeds a ladder windows of equal load, time moved by hand."""

    def __init__(self, *lanes: Lane) -> None:
        self.ladder = Ladder(Policy(lanes=lanes or (Lane(deadline_s=0.1),), ladder=RUNGS))
        self.now = 0.0
        self.moved: list[tuple[float, int]] = []

    def windows(self, count: float, *loads: float, waiting_s: float = 0.0) -> None:
        for _ in range(round(count)):
            self.now += WINDOW_S
            before = self.ladder.level
            self.ladder.observe(self.now, loads, waiting_s, COSTS)
            if self.ladder.level != before:
                self.moved.append((self.now, self.ladder.level))

    def seconds(self, count: float, *loads: float) -> None:
        self.windows(count / WINDOW_S, *loads)


def test_a_load_that_the_first_variant_carries_moves_nothing() -> None:
    world = World()
    world.seconds(60, 0.9)
    assert world.moved == []


def test_overload_steps_down_within_two_windows_to_the_variant_that_carries_it() -> None:
    world = World()
    world.windows(2, 1.5)
    assert world.ladder.level == 1
    deep = World()
    deep.windows(2, 3.0)
    assert deep.ladder.level == 2


def test_a_burst_that_the_deadlines_allow_to_wait_moves_nothing() -> None:
    patient = World(Lane(deadline_s=2.0))
    patient.windows(1, 2.0)
    patient.seconds(10, 0.5)
    assert patient.moved == []


def test_a_queue_that_is_already_long_counts() -> None:
    world = World(Lane(deadline_s=2.0))
    world.windows(1, 1.1, waiting_s=1.0)
    assert world.ladder.level == 1


def test_the_first_variant_comes_back_after_six_calm_seconds_and_not_earlier() -> None:
    world = World()
    world.seconds(5, 1.5)
    world.seconds(5.5, 0.4)
    assert world.ladder.level == 1
    world.seconds(0.5, 0.4)
    assert world.ladder.level == 0


def test_a_step_stands_for_ten_seconds_though_the_load_was_short() -> None:
    world = World()
    world.seconds(1, 1.5)
    world.seconds(9, 0.4)
    assert world.ladder.level == 1
    world.seconds(0.5, 0.4)
    assert world.moved == [(0.5, 1), (10.5, 0)]


def test_from_the_last_variant_the_first_comes_back_without_a_stop_in_between() -> None:
    world = World()
    world.seconds(10, 2.0)
    world.seconds(15, 0.5)
    assert world.moved == [(0.5, 2), (16.0, 0)]


def test_a_load_that_a_better_variant_carries_for_long_steps_up_to_it_only() -> None:
    world = World()
    world.seconds(5, 3.0)
    world.seconds(30, 1.2)
    assert [level for _, level in world.moved] == [2, 1]


def test_a_load_that_only_the_cheap_variant_carries_keeps_it() -> None:
    world = World()
    world.seconds(60, 1.2)
    assert world.moved == [(WINDOW_S, 1)]


def test_a_load_that_goes_up_and_down_every_second_moves_the_level_once() -> None:
    world = World()
    for _ in range(60):
        world.windows(1, 3.0)
        world.windows(1, 0.2)
    assert world.moved == [(WINDOW_S, 2)]


def test_more_load_soon_after_a_step_takes_two_windows_to_step_again() -> None:
    world = World()
    world.windows(1, 1.5)
    world.windows(1, 3.0)
    assert world.ladder.level == 1
    world.windows(1, 3.0)
    assert world.ladder.level == 2


def test_a_lane_is_never_served_below_its_floor() -> None:
    lanes = Lane(name="exact", accuracy_floor=0.9), Lane(name="good", accuracy_floor=0.85), Lane(name="any")
    world = World(*lanes)
    world.windows(2, 2.0, 2.0, 2.0)
    assert [world.ladder.rung(lane) for lane in range(3)] == [0, 1, 2]


def test_background_work_is_shed_after_the_last_variant_and_before_anything_else() -> None:
    lanes = Lane(name="critical", deadline_s=0.1), Lane(name="batch", background=True, min_share=0.05)
    world = World(*lanes)
    world.windows(2, 0.6, 1.0)
    assert (world.ladder.level, world.ladder.state) == (1, "cheaper variant")
    world.windows(2, 0.6, 9.0)
    assert (world.ladder.level, world.ladder.state) == (3, "shedding")
    assert world.ladder.shedding
    world.seconds(10.5, 0.6, 0.1)
    assert (world.ladder.level, world.ladder.state) == (0, "first variant")


def test_a_ladder_of_one_variant_never_moves() -> None:
    ladder = Ladder(Policy())
    assert not ladder.moves
    for number in range(20):
        ladder.observe(number / 2, [9.0], 9.0, [1.0])
    assert (ladder.level, ladder.transitions) == (0, 0)


LOADS = st.lists(st.tuples(st.integers(1, 30), st.floats(0.0, 6.0)), max_size=20)


@settings(deadline=None)
@given(LOADS)
def test_whatever_the_load_the_level_stays_on_the_ladder_and_steps_up_only_when_it_has_settled(
    spells: list[tuple[int, float]],
) -> None:
    world = World()
    for count, load in spells:
        world.windows(count, load)
    last = (-math.inf, 0)
    for at, level in world.moved:
        assert 0 <= level < len(RUNGS)
        if level < last[1]:
            assert at - last[0] >= 10.0 - 1e-6
        last = (at, level)


@settings(deadline=None)
@given(high=st.floats(1.0, 6.0), loaded=st.floats(4.5, 60.0), low=st.floats(0.0, 0.8))
def test_after_any_load_that_lasted_the_first_variant_is_back_within_seven_seconds(
    high: float, loaded: float, low: float
) -> None:
    world = World()
    world.seconds(loaded, high)
    fell = world.now
    world.seconds(10, low)
    assert world.ladder.level == 0
    assert all(at - fell <= 7.0 for at, _ in world.moved)


@settings(deadline=None)
@given(period=st.integers(2, 60), busy=st.floats(0.1, 0.9), high=st.floats(0.0, 6.0), low=st.floats(0.0, 1.0))
def test_load_of_any_period_never_moves_the_level_up_and_down_within_ten_seconds(
    period: int, busy: float, high: float, low: float
) -> None:
    """After a step up, a single window steps down again only when that has settled."""
    world = World()
    for number in range(400):
        world.windows(1, high if number % period < busy * period else low)
    for (before, upper), (after, lower) in pairwise(world.moved):
        if lower < upper:
            assert after - before >= 10.0 - 1e-6


@settings(deadline=None)
@given(high=st.floats(0.0, 6.0), low=st.floats(0.0, 6.0), phase=st.floats(0.0, 1.0))
def test_load_that_oscillates_at_one_hertz_moves_the_level_at_most_once_in_ten_seconds(
    high: float, low: float, phase: float
) -> None:
    """Windows of half a second see the two halves of each second in some mixture, the same one every second."""
    world = World()
    for _ in range(40):
        world.windows(1, phase * high + (1 - phase) * low)
        world.windows(1, (1 - phase) * high + phase * low)
    for (before, _), (after, _) in pairwise(world.moved):
        assert after - before == pytest.approx(10.0, abs=1e-6) or after - before > 10.0
