"""The serving part of the page: what was chosen, what was predicted, and what the real server gave."""

from __future__ import annotations

import msgspec

from hasten.report import render
from hasten.report.serving import plan_of
from hasten.spec.evidence import Record
from hasten.spec.measurement import Figure, unmeasured
from hasten.spec.serving import Deployment, Prediction, Rehearsal, Serving


def fig(value: float) -> Figure:
    return Figure(value=value, low=value * 0.9, high=value * 1.1, n=500)


def prediction(p99: float) -> Prediction:
    return Prediction(
        load_rps=60.0,
        latency_p50_ms=fig(8.0),
        latency_p95_ms=fig(12.0),
        latency_p99_ms=fig(p99),
        throughput_rps=fig(60.0),
        utilisation=0.42,
    )


def served(record: Record, rehearsed: bool = True) -> Record:
    found = Rehearsal(
        load_rps=60.0,
        offered_rps=60.0,
        latency_p50_ms=fig(8.5),
        latency_p95_ms=fig(13.0),
        latency_p99_ms=fig(19.0),
        throughput_rps=fig(59.0),
    )
    deployment = Deployment(
        variant=record.picked,
        serving=Serving(instances=2, threads=1, max_batch=4, max_delay_ms=1.5),
        reason="The lowest predicted latency_p99_ms at 60 requests/s.",
        capacity_rps=fig(140.0),
        cost_per_million_usd=unmeasured("no price given"),
        predicted=prediction(18.0),
        rehearsed=found if rehearsed else None,
        considered=((Serving(instances=1, threads=2), prediction(27.0)),),
    )
    return msgspec.structs.replace(record, deployments=(deployment,))


def test_predicted_and_measured_stand_side_by_side(accepted: Record) -> None:
    plan = plan_of(served(accepted))
    assert plan is not None
    assert plan.how == "2 instances, 1 thread each, batches of at most 4, waiting at most 1.5 ms"
    p99 = next((before, after) for label, before, after in plan.rows if "99" in label)
    assert (p99[0].value, p99[1].value) == ("18.0 ms", "19.0 ms")
    assert plan.cost is None


def test_other_settings_are_shown_after_the_chosen_one(accepted: Record) -> None:
    plan = plan_of(served(accepted))
    assert plan is not None
    assert [option.chosen for option in plan.options] == [True, False]


def test_a_server_that_was_not_rehearsed_is_said_to_be_so(accepted: Record) -> None:
    plan = plan_of(served(accepted, rehearsed=False))
    assert plan is not None
    assert all(after.value == "not measured" for _, _, after in plan.rows)


def test_the_page_has_the_section_only_where_there_is_a_plan(accepted: Record) -> None:
    assert plan_of(accepted) is None
    assert "How it is served" not in render(accepted, title="x")
    assert "How it is served" in render(served(accepted), title="x")
