"""Meters on made-up arms: paired, interleaved, and silent about nothing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hasten.data import Dataset
from hasten.measure.accuracy import AccuracyMeter
from hasten.measure.base import AnswerBook, Pair, Plan
from hasten.measure.batching import MAX_BATCH, max_batch
from hasten.measure.contention import Watch, cores_given
from hasten.measure.latency import LatencyMeter, race
from hasten.measure.memory import MemoryMeter
from hasten.model.open import open_model
from hasten.spec.measurement import Figure
from hasten.spec.signature import Signature
from hasten.spec.tensor import TensorSpec
from hasten.testing import FakeArm, ManualClock

Answer = Callable[[Any], dict[str, np.ndarray]]


def identity(inputs: Any) -> dict[str, np.ndarray]:
    return {"y": inputs["x"][:, :3]}


@pytest.fixture
def arm(make_linear: Callable[..., Path]) -> Callable[..., FakeArm]:
    signature = open_model(make_linear()).signature
    return lambda ms=10.0, answer=identity, seed=0: FakeArm(signature, answer, ms=ms, seed=seed)


def pair(reference: FakeArm, candidate: FakeArm, **options: Any) -> Pair:
    x = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    data = Dataset(inputs={"x": x}, labels=options.pop("labels", None))
    return Pair(
        reference=reference,
        candidate=candidate,
        fresh=lambda: nullcontext(candidate),
        data=data.subset(range(200)),
        book=AnswerBook(),
        plan=Plan(rounds=40, runs=10),
        watch=options.pop("watch", Watch(0.0, probe=lambda: 99.0)),
        label="candidate",
    )


class FirstMeeting(FakeArm):
    """Takes a second for an input of a shape that it never met, and 10 ms from then on."""

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature, dict, ms=10.0)
        self.lengths: dict[int, int] = {}
        self.met: set[int] = set()

    def put(self, slot: int, inputs: Any) -> None:
        self.lengths[slot] = inputs["x"].shape[1]

    def time_ms(self, slots: Sequence[int], *, warmup: int = 0) -> list[float]:
        times = [10.0 if self.lengths[slot] in self.met else 1000.0 for slot in slots]
        self.met |= {self.lengths[slot] for slot in slots}
        return times


def test_what_an_engine_does_once_for_each_shape_is_not_timed() -> None:
    spec = TensorSpec(name="x", dtype="FP32", shape=("batch", "n"))
    signature = Signature(inputs=(spec,), outputs=(spec,))
    data = Dataset(inputs=[{"x": np.zeros(size, np.float32)} for size in range(1, 41)])
    reference, candidate = FirstMeeting(signature), FirstMeeting(signature)
    ragged = replace(pair(reference, candidate), data=data.subset(range(40)))
    assert LatencyMeter().measure(ragged)["latency_p99_ms"].value == 10.0


def test_a_candidate_of_half_the_time_is_twice_as_fast(arm: Callable[..., FakeArm]) -> None:
    figures = LatencyMeter().measure(pair(arm(10.0), arm(5.0, seed=1)))
    speedup = figures["speedup"]
    assert speedup.low < 2.0 < speedup.high  # type: ignore[operator]
    assert figures["latency_p50_ms"].value == pytest.approx(5.0, rel=0.02)
    assert figures["throughput_rps"].value == pytest.approx(200, rel=0.02)
    assert figures["latency_p99_ms"].value is not None


def test_rounds_on_a_contended_machine_are_counted_in_the_figure(arm: Callable[..., FakeArm]) -> None:
    watch = Watch(1.0, probe=lambda: 0.5, pause=lambda s: None)
    figures = LatencyMeter().measure(pair(arm(), arm(seed=1), watch=watch))
    assert "40 of 40 rounds on a contended machine" in (figures["speedup"].method or "")


def test_a_round_waits_for_a_quiet_machine_within_its_patience() -> None:
    given = iter([0.5, 0.5, 99.0])
    pauses: list[float] = []
    watch = Watch(10.0, probe=lambda: next(given), pause=pauses.append)
    assert watch.round_is_quiet()
    assert len(pauses) == 2


def test_a_machine_gives_at_least_part_of_a_core() -> None:
    assert cores_given() > 0.2


def test_a_race_compares_candidates_in_the_same_rounds(arm: Callable[..., FakeArm]) -> None:
    base = pair(arm(10.0), arm())
    arms = {"fast": arm(2.0, seed=1), "slow": arm(8.0, seed=2)}
    speeds = race(arm(10.0), arms, base.data, base.plan, base.watch)
    assert speeds["fast"].value == pytest.approx(5.0, rel=0.05)
    assert speeds["slow"].value == pytest.approx(1.25, rel=0.05)


def test_accuracy_is_paired_by_sample_and_the_reference_answers_once(arm: Callable[..., FakeArm]) -> None:
    def flipped(inputs: Any) -> dict[str, np.ndarray]:
        x = inputs["x"]
        return {"y": np.where(x[:, 3:] > 1.0, x[:, [1, 2, 0]], x[:, :3])}

    reference = arm()
    both = pair(reference, arm(answer=flipped))
    figures = AccuracyMeter().measure(both)
    assert figures["accuracy"].value == pytest.approx(1 + figures["accuracy_change"].value)  # type: ignore[operator]
    assert -0.3 < figures["accuracy_change"].value < -0.05  # type: ignore[operator]
    runs = len(reference.runs)
    AccuracyMeter().measure(both)
    assert len(reference.runs) == runs


def test_with_labels_the_change_is_candidate_minus_reference(arm: Callable[..., FakeArm]) -> None:
    x = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    figures = AccuracyMeter().measure(pair(arm(), arm(), labels=x[:, :3].argmax(1)))
    assert figures["accuracy"].value == 1.0
    assert figures["accuracy_change"].value == 0.0
    assert figures["accuracy_change"].low < -0.005  # type: ignore[operator]


def test_memory_and_load_time_come_from_a_fresh_process_without_an_interval(arm: Callable[..., FakeArm]) -> None:
    figures = MemoryMeter().measure(pair(arm(), arm()))
    assert figures["memory_peak_mb"] == Figure(value=100.0, low=None, high=None, n=1, method="peak resident set")


def test_a_cold_start_runs_from_before_the_process_is_asked_for_to_its_first_answer(
    arm: Callable[..., FakeArm],
) -> None:
    clock, candidate, seen = ManualClock(), arm(), [0]

    @contextmanager
    def fresh() -> Generator[FakeArm]:
        clock.advance(2.0)
        yield fresh_arm

    def answer(inputs: Any) -> dict[str, np.ndarray]:
        seen[0] += 1
        clock.advance(0.5)
        return identity(inputs)

    fresh_arm = arm(answer=answer)
    figures = MemoryMeter(clock.now).measure(replace(pair(arm(), candidate), fresh=fresh))
    assert figures["cold_start_ms"].value == 2500
    assert seen[0] > 1, "later answers are not waited for"


def test_stacking_is_allowed_where_it_changes_nothing_and_only_there(arm: Callable[..., FakeArm]) -> None:
    data = pair(arm(), arm()).data
    assert max_batch(arm(), data) == MAX_BATCH

    def mixing(inputs: Any) -> dict[str, np.ndarray]:
        x = inputs["x"]
        return {"y": x[:, :3] - x[:, :3].mean(0)}

    assert max_batch(arm(answer=mixing), data) == 1
