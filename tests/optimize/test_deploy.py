"""Serving defaults in the main job: chosen, rehearsed, held to the objectives at their load, and packed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from hasten.bundle.read import open_bundle
from hasten.errors import EngineError
from hasten.optimize.deploy import Asked, deployment_line
from hasten.optimize.run import Job, run
from hasten.spec.measurement import NOT_MEASURED, Figure, unmeasured
from hasten.spec.serving import Deployment, Prediction, Rehearsal, Serving
from hasten.spec.slo import Goal, Slo

Make = Callable[..., Job]


def fig(value: float) -> Figure:
    return Figure(value=value, low=value * 0.95, high=value * 1.05, n=1000)


class MadeUp:
    """Chooses two instances; the server answers at the p99 that is given for a variant."""

    def __init__(self, p99_ms: dict[str, float] | None = None, error: EngineError | None = None) -> None:
        self.p99_ms = p99_ms or {}
        self.error = error
        self.asked: list[Asked] = []
        self.rehearsed: list[str] = []

    def choose(self, asked: Asked) -> Deployment:
        self.asked.append(asked)
        predicted = Prediction(
            load_rps=asked.goal.slo.throughput_rps or 1.0,
            latency_p50_ms=fig(5),
            latency_p95_ms=fig(8),
            latency_p99_ms=fig(9),
            throughput_rps=fig(50),
            utilisation=0.5,
        )
        return Deployment(
            variant=asked.variant,
            serving=Serving(instances=2, threads=1, max_batch=4),
            reason="Made up.",
            capacity_rps=fig(100),
            cost_per_million_usd=NOT_MEASURED,
            predicted=predicted,
        )

    def rehearse(self, asked: Asked, deployment: Deployment, bundle: Path) -> Deployment:
        if self.error:
            raise self.error
        opened = open_bundle(bundle)
        assert opened.manifest.picked == deployment.variant
        assert opened.manifest.serving_of(deployment.variant) == deployment.serving
        self.rehearsed.append(deployment.variant)
        load = deployment.predicted.load_rps
        found = Rehearsal(
            load_rps=load,
            offered_rps=load,
            latency_p50_ms=fig(5),
            latency_p95_ms=fig(8),
            latency_p99_ms=fig(self.p99_ms.get(deployment.variant, 10.0)),
            throughput_rps=fig(load),
        )
        return msgspec.structs.replace(deployment, rehearsed=found)


LOADED = Goal(slo=Slo(accuracy_drop_max=0.02, throughput_rps=50, latency_p99_ms=20))


def test_the_pick_is_packed_with_its_serving_defaults(make_job: Make) -> None:
    outcome = run(make_job(deployer=MadeUp()))
    assert outcome.bundle is not None
    manifest = open_bundle(outcome.bundle).manifest
    assert manifest.serving_of(manifest.picked) == Serving(instances=2, threads=1, max_batch=4)
    [deployment] = outcome.record.deployments
    assert deployment.variant == outcome.record.picked
    assert deployment.rehearsed is not None


def test_who_chooses_sees_service_times_keys_and_inputs_of_tuning_data(make_job: Make) -> None:
    deployer = MadeUp()
    run(make_job(deployer=deployer))
    [asked] = deployer.asked
    assert {cell.batch for cell in asked.times} >= {1}
    assert asked.keys
    assert all(inputs["x"].shape == (1, 4) for inputs in asked.inputs)


def test_a_pick_that_holds_at_the_load_is_accepted(make_job: Make) -> None:
    record = run(make_job(goal=LOADED, deployer=MadeUp())).record
    assert record.verdict == "accepted"
    picked = next(item for item in record.holdout if item.variant.id == record.picked)
    assert {"throughput_rps", "latency_p99_ms"} <= {check.objective for check in picked.checks}


def test_a_pick_that_fails_at_the_load_gives_way_to_the_reference_which_is_asked_too(make_job: Make) -> None:
    deployer = MadeUp({"openvino-bf16-2t": 50.0})
    slow = {("openvino", "f32", threads): (15.0, 0.0) for threads in (1, 2)}
    record = run(make_job(slow, goal=LOADED, deployer=deployer)).record
    assert deployer.rehearsed == ["openvino-bf16-2t", "reference"]
    assert record.verdict == "keep_reference"
    assert "at 50 requests/s" in record.summary


def test_a_spare_that_stands_in_for_a_pick_that_fails_at_the_load_is_asked_itself(make_job: Make) -> None:
    deployer = MadeUp({"openvino-bf16-2t": 50.0})
    close = {("openvino", "f32", 2): (4.2, 0.0)}
    # Exhaustive, so that no forecast keeps the spare from its trial.
    record = run(make_job(close, goal=LOADED, deployer=deployer, exhaustive=True)).record
    spare = record.holdout[1].variant
    assert (spare.target.engine, spare.target.precision) == ("openvino", "f32")
    assert deployer.rehearsed == ["openvino-bf16-2t", spare.id]
    assert (record.verdict, record.picked) == ("accepted", spare.id)
    assert record.ladder == (spare.id, "reference")
    assert "It stands in for openvino-bf16-2t, whose claim failed: latency_p99_ms is 50" in record.summary


def test_where_the_reference_fails_at_the_load_as_well_the_objectives_are_infeasible(make_job: Make) -> None:
    deployer = MadeUp({"openvino-bf16-2t": 50.0, "openvino-f32-2t": 50.0, "reference": 60.0})
    outcome = run(make_job(goal=LOADED, deployer=deployer))
    assert outcome.record.verdict == "infeasible"
    assert outcome.bundle is None


def test_a_server_that_does_not_start_leaves_the_load_open_and_the_answer_stands(make_job: Make) -> None:
    notes: list[str] = []
    broken = MadeUp(error=EngineError("The server did not start: no port."))
    outcome = run(make_job(deployer=broken, listener=lambda progress: notes.append(progress.note or "")))
    assert outcome.record.verdict == "accepted"
    assert outcome.record.deployments[0].rehearsed is None
    assert any("no port" in note for note in notes)


def test_where_nobody_rehearses_an_objective_at_a_load_stays_open(make_job: Make) -> None:
    record = run(make_job(goal=LOADED)).record
    assert record.verdict == "keep_reference"
    assert "was not rehearsed at 50 requests/s" in record.summary
    assert record.deployments == ()


def test_a_resumed_run_does_not_rehearse_again(make_job: Make) -> None:
    def failing(record: object) -> str:
        raise KeyboardInterrupt

    first, second = MadeUp(), MadeUp()
    with pytest.raises(KeyboardInterrupt):
        run(make_job(deployer=first, render=failing))
    run(make_job(deployer=second, resume=True))
    assert first.rehearsed == ["openvino-bf16-2t"]
    assert second.rehearsed == []


def test_what_could_not_be_measured_is_said_in_the_line() -> None:
    found = Rehearsal(
        load_rps=1.0,
        offered_rps=1.0,
        latency_p50_ms=fig(5),
        latency_p95_ms=fig(8),
        latency_p99_ms=unmeasured("p99 needs at least 368 values, there are 20"),
        throughput_rps=fig(1),
    )
    predicted = Prediction(
        load_rps=1.0,
        latency_p50_ms=fig(5),
        latency_p95_ms=fig(8),
        latency_p99_ms=fig(9),
        throughput_rps=fig(1),
        utilisation=0.1,
    )
    made = Deployment(
        variant="v",
        serving=Serving(instances=2, threads=1),
        reason="",
        capacity_rps=fig(2),
        cost_per_million_usd=NOT_MEASURED,
        predicted=predicted,
        rehearsed=found,
    )
    assert deployment_line(made) == (
        "v: 2 instances, 1 thread each, no batching; at 1/s p99 9.0 ms predicted, p99 not measured: "
        "p99 needs at least 368 values, there are 20"
    )
