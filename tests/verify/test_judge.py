"""The whole interval is held against each bound."""

from __future__ import annotations

import pytest

from hasten.spec.measurement import Figure, Measurement, MetricInfo, unmeasured
from hasten.spec.serving import Rehearsal
from hasten.spec.slo import Goal, Objective, Slo
from hasten.spec.target import Target
from hasten.spec.variant import Variant
from hasten.verify import judge
from hasten.verify.judge import judge_load, may_be_picked, why_not_picked

VARIANT = Variant(id="v", target=Target(engine="openvino"))


def fig(value: float, low: float, high: float, n: int = 400) -> Figure:
    return Figure(value=value, low=low, high=high, n=n)


def measured(higher_is_better: bool = True, **figures: Figure) -> Measurement:
    defaults = {"speedup": fig(2, 1.9, 2.1), "accuracy_change": fig(0, -0.001, 0.001)}
    metric = MetricInfo(name="top1", higher_is_better=higher_is_better)
    return Measurement(split="holdout", metric=metric).with_figures({**defaults, **figures})


@pytest.mark.parametrize(
    ("low", "high", "outcome"), [(-0.004, 0.002, "accepted"), (-0.02, 0.002, "unproven"), (-0.04, -0.02, "rejected")]
)
def test_an_accuracy_drop_is_proven_by_its_interval_and_not_by_its_middle(
    low: float, high: float, outcome: str
) -> None:
    evidence = judge(VARIANT, measured(accuracy_change=fig((low + high) / 2, low, high)), Goal())
    assert evidence.outcome == outcome


def test_for_an_error_rate_a_rise_is_the_drop() -> None:
    worse = judge(VARIANT, measured(False, accuracy_change=fig(0.03, 0.02, 0.04)), Goal())
    better = judge(VARIANT, measured(False, accuracy_change=fig(-0.03, -0.04, -0.02)), Goal())
    assert (worse.outcome, better.outcome) == ("rejected", "accepted")
    assert "top1 rises by 3.00 points" in worse.reasons[0]


@pytest.mark.parametrize(("low", "picked"), [(-0.009, True), (-0.011, False)])
def test_a_claim_beside_others_is_held_to_its_longer_interval(low: float, picked: bool) -> None:
    goal = Goal(slo=Slo(accuracy_drop_max=0.01))
    evidence = judge(VARIANT, measured(accuracy_change_claimed=fig(0.0, low, 0.002)), goal)
    assert evidence.outcome == "accepted"
    assert may_be_picked(evidence, goal) is picked
    assert picked or "not by the longer interval of claims beside others: top1 drops" in why_not_picked(evidence, goal)


def test_without_a_share_of_the_error_nothing_is_picked() -> None:
    evidence = judge(VARIANT, measured(), Goal())
    assert evidence.outcome == "accepted"
    assert not may_be_picked(evidence, Goal())
    assert "too few" in why_not_picked(evidence, Goal())


def test_what_misses_an_objective_is_not_picked_for_that_reason() -> None:
    evidence = judge(VARIANT, measured(speedup=fig(1.0, 0.99, 1.01), accuracy_change_claimed=fig(0, 0, 0)), Goal())
    assert not may_be_picked(evidence, Goal())
    assert why_not_picked(evidence, Goal()) == evidence.reasons[0]


def test_an_unproven_drop_says_how_many_samples_would_do() -> None:
    evidence = judge(VARIANT, measured(accuracy_change=fig(0.0, -0.01, 0.01, n=100)), Goal())
    assert "about 400 would do" in evidence.reasons[0]


def test_no_gain_is_a_reason_and_the_reference_needs_none() -> None:
    flat = measured(speedup=fig(1.0, 0.99, 1.01))
    assert judge(VARIANT, flat, Goal()).outcome == "rejected"
    assert judge(VARIANT, flat, Goal(), is_reference=True).outcome == "accepted"


def test_a_bound_on_what_was_not_measured_stays_open_with_the_reason() -> None:
    goal = Goal(slo=Slo(latency_p99_ms=20))
    evidence = judge(VARIANT, measured(latency_p99_ms=unmeasured("p99 needs at least 368 values")), goal)
    assert evidence.outcome == "unproven"
    assert "368 values" in evidence.reasons[0]


@pytest.mark.parametrize(
    ("goal", "figures"),
    [
        (Slo(latency_p50_ms=10), {"latency_p50_ms": fig(12, 11, 13)}),
        (Slo(throughput_rps=1e6), {"throughput_rps": fig(80, 70, 90)}),
        (Slo(memory_max_mb=100), {"memory_peak_mb": Figure(value=120, low=None, high=None, n=1)}),
    ],
)
def test_each_bound_that_is_missed_rejects(goal: Slo, figures: dict[str, Figure]) -> None:
    assert judge(VARIANT, measured(**figures), Goal(slo=goal)).outcome == "rejected"


def rehearsed(p99: Figure, answered: float, failed: int = 0, offered: float = 50.5) -> Rehearsal:
    return Rehearsal(
        load_rps=50,
        offered_rps=offered,
        latency_p50_ms=fig(5, 4, 6),
        latency_p95_ms=fig(8, 7, 9),
        latency_p99_ms=p99,
        throughput_rps=Figure(value=answered, low=None, high=None, n=500),
        failed=failed,
    )


LOADED = Goal(slo=Slo(throughput_rps=50, latency_p99_ms=20, accuracy_drop_max=0.05))


@pytest.mark.parametrize(
    ("rehearsal", "outcome", "words"),
    [
        (rehearsed(fig(15, 12, 18), 50.5), "accepted", ""),
        (rehearsed(fig(25, 22, 28), 50.5), "rejected", "ms at 50 requests/s"),
        (rehearsed(fig(19, 17, 22), 50.5), "unproven", "latency_p99_ms is 19"),
        (rehearsed(fig(15, 12, 18), 40.0), "rejected", "40 of 50.5 requests/s were answered"),
        (rehearsed(fig(15, 12, 18), 45.0, offered=45.5), "accepted", ""),
        (rehearsed(fig(15, 12, 18), 50.5, failed=3), "rejected", "3 got no answer"),
        (None, "unproven", "not rehearsed"),
    ],
)
def test_at_the_load_of_the_objectives_the_real_server_is_what_counts(
    rehearsal: Rehearsal | None, outcome: str, words: str
) -> None:
    evidence = judge(VARIANT, measured(latency_p99_ms=fig(10, 9, 11), throughput_rps=fig(80, 70, 90)), LOADED)
    found = judge_load(evidence, rehearsal, LOADED)
    assert found.outcome == outcome
    assert words in " ".join(found.reasons)


def test_without_a_load_in_the_objectives_a_rehearsal_changes_nothing() -> None:
    evidence = judge(VARIANT, measured(), Goal())
    assert judge_load(evidence, None, Goal()) is evidence


def test_where_energy_is_minimized_the_gain_is_in_energy_and_not_in_speed() -> None:
    goal = Goal(objective=Objective(minimize="energy_per_prediction_j"))
    thrifty = measured(speedup=fig(0.8, 0.79, 0.81), energy_gain=fig(2, 1.9, 2.1))
    assert judge(VARIANT, thrifty, goal).outcome == "accepted"
    fast = judge(VARIANT, measured(energy_gain=fig(0.9, 0.89, 0.91)), goal)
    assert fast.outcome == "rejected"
    assert "times less energy than the reference" in fast.reasons[0]
    blind = judge(VARIANT, measured(energy_gain=unmeasured("no counter")), goal)
    assert blind.outcome == "unproven"
