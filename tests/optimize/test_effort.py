"""How much is measured follows from the time of one prediction and the budget, before anything is compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.data import Dataset
from hasten.data.split import Splits, split
from hasten.measure.turns import WARMUP
from hasten.model.open import open_model
from hasten.optimize.effort import TUNING_SHARE, claim_effort, effort_for, time_for_claims
from hasten.spec.slo import Slo
from hasten.testing import FakeArm

EACH_S = 0.020


class Uneven(FakeArm):
    """One lucky run in ten takes a tenth of the time of the others."""

    def time_ms(self, slots: Sequence[int], *, warmup: int = 0) -> list[float]:
        return [2.0 if at == 0 else EACH_S * 1e3 for at, _ in enumerate(slots)]


def world(make_linear: Callable[..., Path], samples: int = 6000) -> tuple[Uneven, Splits]:
    signature = open_model(make_linear("m.onnx")).signature
    rows = np.random.default_rng(0).normal(size=(samples, 4)).astype(np.float32)
    return Uneven(signature, dict, ms=EACH_S * 1e3), split(Dataset(inputs={"x": rows}))


def claims_s(gains: Sequence[float], left_s: float, there: int = 100_000, slo: Slo | None = None) -> float:
    """What the claims that are planned take, by the plan's own assumptions."""
    plan = claim_effort(EACH_S, gains, left_s, slo or Slo(), there)
    times = [EACH_S / gain for gain in gains[: plan.picks]]
    answers = plan.samples * (EACH_S + sum(times))
    return answers + plan.rounds * (plan.plan(0, 0).runs + WARMUP) * (2 * EACH_S + sum(EACH_S + time for time in times))


@given(st.lists(st.floats(1.0, 8.0), max_size=3), st.floats(120.0, 600.0))
def test_all_claims_together_fit_the_time_that_is_left(gains: list[float], left_s: float) -> None:
    assert claims_s(gains, left_s) <= left_s * 1.01


@pytest.mark.parametrize("budget_s", [60.0, 240.0, 600.0, 3600.0])
@pytest.mark.parametrize("samples", [300, 6000])
def test_trials_and_claims_leave_room_for_run_off_and_serving(
    make_linear: Callable[..., Path], budget_s: float, samples: int
) -> None:
    effort = effort_for(*world(make_linear, samples), 10, budget_s, Slo())
    claims_s = time_for_claims(budget_s, effort.tuning_s, effort.claims_s)
    assert effort.tuning_s >= budget_s * TUNING_SHARE
    assert effort.tuning_s + claims_s <= 0.86 * budget_s


def test_the_search_goes_on_with_what_short_claims_leave(make_linear: Callable[..., Path]) -> None:
    few, many = (effort_for(*world(make_linear, samples), 10, 240.0, Slo()) for samples in (300, 6000))
    assert few.claims_s < many.claims_s
    assert few.tuning_s > many.tuning_s


def test_trials_that_took_less_leave_more_for_the_claims() -> None:
    assert time_for_claims(100.0, 20.0, 30.0) == pytest.approx(65.0)


def test_claims_get_what_they_were_expected_to_need_however_long_trials_took() -> None:
    assert time_for_claims(100.0, 90.0, 12.0) == pytest.approx(12.0)
    assert time_for_claims(100.0, 90.0, 500.0) == pytest.approx(30.0)


def test_a_claim_gets_the_samples_that_its_bound_needs_before_more_rounds() -> None:
    loose, strict = (claim_effort(EACH_S, [1.5], 60.0, Slo(accuracy_drop_max=d), 9000) for d in (0.02, 0.004))
    assert strict.samples >= 957 > loose.samples
    assert strict.rounds < loose.rounds


def test_a_faster_pick_is_claimed_on_more_samples() -> None:
    slow, fast = (claim_effort(EACH_S, [gain], 40.0, Slo(accuracy_drop_max=0.001), 9000) for gain in (1.0, 4.0))
    assert fast.samples > slow.samples


def test_where_time_does_not_suffice_for_all_it_is_for_the_first() -> None:
    strict = Slo(accuracy_drop_max=0.004)
    assert claim_effort(EACH_S, [1.5, 1.4, 1.3], 60.0, strict, 9000).picks == 1
    assert claim_effort(EACH_S, [1.5, 1.4, 1.3], 600.0, strict, 9000).picks == 3
    assert claim_effort(EACH_S, [1.5, 1.4, 1.3], 60.0, Slo(accuracy_drop_max=0.05), 9000).picks == 3


def test_claims_beyond_their_share_of_the_error_are_measured_and_cannot_be_picked() -> None:
    few = claim_effort(EACH_S, [1.5, 1.4], 600.0, Slo(accuracy_drop_max=0.005), 780)
    assert [bool(few.plan(0, place).also_z) for place in (-1, 0, 1)] == [False, True, False]
    ranked = claim_effort(EACH_S, [1.5, 1.4], 600.0, Slo(accuracy_drop_max=0.005), 780, counts_answers=False)
    assert [bool(ranked.plan(0, place).also_z) for place in (-1, 0, 1)] == [False, True, True]


def test_nothing_picked_claims_the_reference_alone() -> None:
    assert claim_effort(EACH_S, [], 60.0, Slo(), 9000).picks == 0


def test_a_longer_budget_measures_more_and_never_more_than_there_is(make_linear: Callable[..., Path]) -> None:
    arm, splits = world(make_linear)
    short, long = (effort_for(arm, splits, 10, seconds, Slo()) for seconds in (60.0, 100_000.0))
    assert short.holdout_samples < long.holdout_samples == len(splits.holdout)
    assert short.tuning_samples < long.tuning_samples == len(splits.choosing)


def test_one_lucky_run_does_not_pass_for_the_usual_speed(make_linear: Callable[..., Path]) -> None:
    assert effort_for(*world(make_linear), 10, 240.0, Slo()).seconds == EACH_S


def test_an_objective_on_the_tail_gets_the_runs_that_it_needs() -> None:
    plan = claim_effort(EACH_S, [1.2], 5.0, Slo(latency_p99_ms=50), 9000)
    assert plan.rounds * plan.plan(0, 0).runs >= 368


def test_every_seed_draws_other_orders_for_trials_and_claims(make_linear: Callable[..., Path]) -> None:
    arm, splits = world(make_linear)
    trials = [effort_for(arm, splits, 10, 240.0, Slo(), seed=seed).tuning.seed for seed in range(5)]
    claims = [claim_effort(EACH_S, [1.5], 60.0, Slo(), 9000).plan(seed, 0).seed for seed in range(5)]
    assert len({*trials, *claims}) == 10


def test_a_run_off_goes_on_for_a_share_of_the_budget_and_never_with_fewer_rounds_than_a_trial(
    make_linear: Callable[..., Path],
) -> None:
    slow = effort_for(*world(make_linear), 10, 240.0, Slo())
    fast = replace(slow, seconds=EACH_S / 40)
    assert slow.run_off([2.0, 2.0], 60.0).rounds == slow.tuning.rounds
    assert slow.tuning.rounds < fast.run_off([2.0, 2.0], 60.0).rounds < fast.run_off([2.0, 2.0], 240.0).rounds
    assert fast.run_off([2.0], 1e6).rounds == 200
    assert replace(fast.run_off([2.0], 1e6), rounds=slow.tuning.rounds) == slow.tuning
