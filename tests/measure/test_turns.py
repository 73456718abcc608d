"""Turns: untimed runs first, and rest for whoever is not timed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from hasten.data.dataset import Dataset
from hasten.engine.process import SETTLE_S
from hasten.measure.base import Plan
from hasten.measure.contention import Watch
from hasten.measure.latency import race_times
from hasten.measure.turns import WARMUP, turn_ms, turn_s
from hasten.spec.signature import Signature
from hasten.spec.tensor import TensorSpec
from hasten.testing import FakeArm

Heard = list[tuple[str, str]]


SPEC = TensorSpec(name="x", dtype="FP32", shape=("batch", 4))
SIGNATURE = Signature(inputs=(SPEC,), outputs=(SPEC,))


class Telling(FakeArm):
    """Tells, under its name, when it runs and when it rests."""

    def __init__(self, name: str, heard: Heard) -> None:
        super().__init__(SIGNATURE, dict, ms=1.0)
        self.warmups: list[int] = []
        self._name, self._heard = name, heard

    def time_ms(self, slots: Sequence[int], *, warmup: int = 0) -> list[float]:
        self.warmups.append(warmup)
        self._heard.append((self._name, "runs"))
        return super().time_ms(slots, warmup=warmup)

    def rest(self) -> None:
        self._heard.append((self._name, "rests"))


def test_a_turn_begins_with_untimed_runs_and_ends_with_rest() -> None:
    heard: Heard = []
    one = Telling("a", heard)
    assert len(turn_ms(one, [0, 1, 2, 3])) == 4
    assert one.warmups == [WARMUP]
    assert heard == [("a", "runs"), ("a", "rests")]


def test_whoever_runs_in_a_race_does_so_while_all_others_rest() -> None:
    heard: Heard = []
    arms = {name: Telling(name, heard) for name in "abc"}
    data = Dataset(inputs={"x": np.zeros((8, 4), np.float32)})
    race_times(arms, data.subset(range(8)), Plan(rounds=6), Watch(0.0, probe=lambda: 99.0))
    assert heard[::2] == [(name, "runs") for name, _ in heard[1::2]]
    assert {what for _, what in heard[1::2]} == {"rests"}


def test_a_turn_is_planned_with_its_untimed_runs_or_until_threads_have_settled() -> None:
    assert turn_s(0.020, 4) == pytest.approx((WARMUP + 4) * 0.020)
    assert turn_s(0.0005, 4) == pytest.approx(SETTLE_S + 4 * 0.0005)
