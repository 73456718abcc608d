"""Energy per prediction on made-up arms: paired, interleaved, named by how it was found."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hasten.data import Dataset
from hasten.measure.base import AnswerBook, Arm, Pair, Plan
from hasten.measure.contention import Watch
from hasten.measure.energy import EnergyMeter, why_no_energy
from hasten.measure.power import Absent, Nvml, Source, Tdp
from hasten.model.open import open_model
from hasten.spec.slo import Prices
from hasten.testing import FakeArm


@pytest.fixture
def make_pair(make_linear: Callable[..., Path]) -> Callable[..., Pair]:
    signature = open_model(make_linear()).signature

    def make(reference: dict[str, Any], candidate: dict[str, Any], **options: Any) -> Pair:
        arms = [
            FakeArm(signature, lambda inputs: {}, seed=seed, **how) for seed, how in enumerate((reference, candidate))
        ]
        x = np.zeros((20, 4), np.float32)
        return Pair(
            reference=arms[0],
            candidate=arms[1],
            fresh=lambda: nullcontext(arms[1]),
            data=Dataset(inputs={"x": x}).subset(range(20)),
            book=AnswerBook(),
            plan=Plan(),
            watch=options.pop("watch", Watch(0.0, probe=lambda: 99.0)),
            **options,
        )

    return make


def source(made: Source | Absent) -> EnergyMeter:
    return EnergyMeter(lambda target, prices: made)


def test_half_the_time_on_a_quarter_of_the_cores_is_an_eighth_of_the_energy(make_pair: Callable[..., Pair]) -> None:
    pair = make_pair({"ms": 10.0, "cores": 4.0}, {"ms": 5.0, "cores": 1.0})
    figures = source(Tdp(80.0, cores=8)).measure(pair)
    energy, gain = figures["energy_per_prediction_j"], figures["energy_gain"]
    assert energy.value == pytest.approx(80 / 8 * 0.005, rel=0.03)
    assert energy.method == "estimated_tdp"
    assert energy.low is not None and energy.low < energy.value < (energy.high or 0)
    assert gain.value == pytest.approx(8.0, rel=0.03)
    assert "estimated_tdp" in (gain.method or "")


def test_where_nothing_can_be_read_no_run_is_made_and_the_reason_says_what_to_do(
    make_pair: Callable[..., Pair],
) -> None:
    pair = make_pair({"ms": 10.0}, {"ms": 5.0})
    figures = source(Absent("no counter", "buy one")).measure(pair)
    assert {name: figure.reason for name, figure in figures.items()} == {
        "energy_per_prediction_j": "no counter; buy one",
        "energy_gain": "no counter; buy one",
    }
    assert isinstance(pair.candidate, FakeArm)
    assert pair.candidate.runs == []


class Still:
    """A counter that does not move."""

    method = "measured_rapl"
    burst_s = 0.1
    readings = 3

    def __init__(self, step: float) -> None:
        self.read = 0
        self._step = step

    def joules(self, arm: Arm) -> float:
        self.read += 1
        return self.read * self._step


def test_a_counter_that_stands_still_gives_no_figure(make_pair: Callable[..., Pair]) -> None:
    figures = source(Still(0.0)).measure(make_pair({"ms": 10.0}, {"ms": 5.0}))
    assert "stood still" in (figures["energy_per_prediction_j"].reason or "")
    assert figures["energy_gain"].value is None


def test_a_source_is_read_as_often_as_it_wants_within_a_burst(make_pair: Callable[..., Pair]) -> None:
    counter = Still(1.0)
    source(counter).measure(make_pair({"ms": 10.0}, {"ms": 5.0}))
    assert counter.read == 6 * 2 * (1 + 3)


def test_rounds_on_a_contended_machine_are_counted_in_the_method(make_pair: Callable[..., Pair]) -> None:
    pair = make_pair({"ms": 10.0}, {"ms": 5.0}, watch=Watch(0.0, probe=lambda: 0.1))
    method = source(Tdp(80.0, cores=8)).measure(pair)["energy_per_prediction_j"].method
    assert method == "estimated_tdp; 6 of 6 rounds on a contended machine"


def test_a_gpu_is_measured_alone_because_the_reference_runs_beside_it(make_pair: Callable[..., Pair]) -> None:
    class Library:
        """Counts 1 J for each time that it is asked."""

        asked = 0

        def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
            return index

        def nvmlDeviceGetTotalEnergyConsumption(self, board: int) -> int:
            self.asked += 1
            return 1000 * self.asked

    pair = make_pair({"ms": 10.0}, {"ms": 150.0})
    figures = source(Nvml(Library(), 0)).measure(pair)
    assert figures["energy_per_prediction_j"].value == pytest.approx(1 / 4)
    assert figures["energy_per_prediction_j"].method == "measured_nvml"
    assert "beside the GPU" in (figures["energy_gain"].reason or "")


def test_the_plan_of_a_claim_has_more_rounds_but_not_many(make_pair: Callable[..., Pair]) -> None:
    pair = make_pair({"ms": 10.0}, {"ms": 5.0})
    meter = source(Tdp(80.0, cores=8))
    assert meter.measure(replace(pair, plan=Plan(rounds=20)))["energy_per_prediction_j"].n == 6
    assert meter.measure(replace(pair, plan=Plan(rounds=200)))["energy_per_prediction_j"].n == 12


def test_whether_energy_can_be_minimized_is_told_before_any_work() -> None:
    assert why_no_energy(Prices(), lambda target, prices: Absent("none", "buy one")) == Absent("none", "buy one")
    assert why_no_energy(Prices(), lambda target, prices: Tdp(80.0, cores=8)) is None
