"""How much is measured follows from the time of one prediction and the budget, before anything is compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hasten.data import Dataset
from hasten.data.split import Splits, split
from hasten.model.open import open_model
from hasten.optimize.effort import effort_for
from hasten.optimize.pick import MOST
from hasten.spec.slo import Slo
from hasten.testing import FakeArm


class Uneven(FakeArm):
    """One lucky run in ten takes a tenth of the time of the others."""

    def time_ms(self, slots: Sequence[int], *, warmup: int = 0) -> list[float]:
        return [2.0 if at == 0 else 20.0 for at, _ in enumerate(slots)]


def world(make_linear: Callable[..., Path], samples: int = 6000) -> tuple[Uneven, Splits]:
    signature = open_model(make_linear("m.onnx")).signature
    rows = np.random.default_rng(0).normal(size=(samples, 4)).astype(np.float32)
    return Uneven(signature, dict, ms=20.0), split(Dataset(inputs={"x": rows}))


def test_all_claims_together_fit_their_share_at_the_usual_speed(make_linear: Callable[..., Path]) -> None:
    arm, splits = world(make_linear)
    budget_s, each_s = 240.0, 0.020
    effort = effort_for(arm, splits, 10, budget_s, Slo())
    one_s = each_s * (effort.holdout_samples + 2 * effort.holdout.rounds * (effort.holdout.runs + 1))
    assert one_s * (MOST + 1) <= budget_s * 0.41


def test_stages_leave_room_for_run_off_and_serving(make_linear: Callable[..., Path]) -> None:
    arm, splits = world(make_linear)
    assert effort_for(arm, splits, 10, 240.0, Slo()).tuning_share + 0.4 < 0.86


def test_a_claim_gets_the_samples_that_its_bound_needs_before_more_rounds(make_linear: Callable[..., Path]) -> None:
    arm, splits = world(make_linear)
    loose, strict = (effort_for(arm, splits, 10, 200.0, Slo(accuracy_drop_max=drop)) for drop in (0.02, 0.006))
    assert strict.holdout_samples >= 637 > loose.holdout_samples
    assert strict.holdout.rounds < loose.holdout.rounds


def test_a_longer_budget_measures_more_and_never_more_than_there_is(make_linear: Callable[..., Path]) -> None:
    arm, splits = world(make_linear)
    short, long = (effort_for(arm, splits, 10, seconds, Slo()) for seconds in (120.0, 100_000.0))
    assert short.holdout_samples < long.holdout_samples == len(splits.holdout)
    assert short.tuning_samples < long.tuning_samples == len(splits.tuning)


def test_an_objective_on_the_tail_gets_the_runs_that_it_needs(make_linear: Callable[..., Path]) -> None:
    arm, splits = world(make_linear)
    effort = effort_for(arm, splits, 10, 30.0, Slo(latency_p99_ms=50))
    assert effort.holdout.rounds * effort.holdout.runs >= 368
