"""Times of operators: in turn, joined by type, and with a reason where there are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hasten.data import Dataset
from hasten.data.dataset import Subset
from hasten.errors import EngineCrashed
from hasten.measure.operators import operator_times
from hasten.model.open import open_model
from hasten.spec.profile import Observation, OperatorTime
from hasten.testing import FakeArm, ManualClock


@pytest.fixture
def arm(make_linear: Callable[..., Path]) -> Callable[..., FakeArm]:
    signature = open_model(make_linear()).signature
    return lambda kind=FakeArm, **options: kind(signature, lambda inputs: {}, ms=1.0, **options)


@pytest.fixture
def data() -> Subset:
    return Dataset(inputs={"x": np.zeros((9, 4), np.float32)}).subset(range(9))


class Averaged(FakeArm):
    """An engine that keeps one mean for each operator."""

    def profile(self, slots: Sequence[int], *, warmup: int = 1) -> Observation:
        operators = [OperatorTime(name=f"c{n}", kind="Conv", us=(10.0,)) for n in range(3)]
        idle = OperatorTime(name="idle", kind="Reshape", us=(0.0,))
        return Observation(operators=(*operators, idle), wall_us=(50.0,) * len(slots), averaged=True)


class Dying(FakeArm):
    def profile(self, slots: Sequence[int], *, warmup: int = 1) -> Observation:
        raise EngineCrashed("It died under the profiler.")


def test_types_come_with_their_times_and_the_largest_first(arm: Callable[..., FakeArm], data: Subset) -> None:
    arms = {"reference": arm(kinds={"Add": 2.0, "Conv": 30.0}), "fast": arm(kinds={"Conv": 10.0})}
    before, after = operator_times(arms, data, clock=ManualClock(), within_s=5)
    assert [(item.kind, item.time_us.value) for item in before.kinds] == [("Conv", 30.0), ("Add", 2.0)]
    assert before.total_us.value == 32.0
    assert before.total_us.low is not None
    assert (after.variant, after.total_us.value) == ("fast", 10.0)


def test_means_over_all_runs_count_once_and_operators_without_time_do_not(
    arm: Callable[..., FakeArm], data: Subset
) -> None:
    [found] = operator_times({"v": arm(Averaged)}, data, clock=ManualClock(), within_s=5)
    assert [(item.kind, item.count, item.time_us.value) for item in found.kinds] == [("Conv", 3, 30.0)]


def test_an_engine_without_a_profiler_says_so_and_the_other_is_profiled(
    arm: Callable[..., FakeArm], data: Subset
) -> None:
    before, after = operator_times(
        {"reference": arm(kinds={"Conv": 1.0}), "v": arm()}, data, clock=ManualClock(), within_s=5
    )
    assert before.reason is None
    assert after.reason == "The fake engine has no profiler."
    assert after.kinds == ()
    assert after.total_us.reason == after.reason


def test_an_engine_that_dies_under_the_profiler_costs_only_its_times(arm: Callable[..., FakeArm], data: Subset) -> None:
    [found] = operator_times({"v": arm(Dying)}, data, clock=ManualClock(), within_s=5)
    assert found.reason == "It died under the profiler."


def test_what_takes_too_long_to_load_is_not_begun(arm: Callable[..., FakeArm], data: Subset) -> None:
    slow: Any = arm(kinds={"Conv": 1.0})
    slow.load_ms = 60_000.0
    [found] = operator_times({"v": slow}, data, clock=ManualClock(), within_s=5)
    assert found.reason is not None
    assert "longer than 5 s" in found.reason
    assert slow.runs == []


def test_rounds_that_turn_out_slow_are_given_up_in_time(arm: Callable[..., FakeArm], data: Subset) -> None:
    clock = ManualClock(step_s=3.0)
    [found] = operator_times({"v": arm(kinds={"Conv": 1.0})}, data, clock=clock, within_s=5)
    assert found.reason is not None
    assert clock.now() < 20
