from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.serve.engines import with_variants

from hasten.bundle.read import Bundle, open_bundle
from hasten.engine.host import environment
from hasten.errors import UsageError
from hasten.serve.config import LaneTable, ModelTable, Scheduling
from hasten.serve.plan import Rules, check_models, default_lane, lanes_of, plan_of, warnings_of
from hasten.spec.evidence import Record
from hasten.spec.measurement import NOT_MEASURED
from hasten.spec.serving import Deployment, Prediction, ServiceTimes
from hasten.spec.variant import REFERENCE

# Latency in ms and accuracy.
VARIANTS = {REFERENCE: (9.0, 0.9), "a": (3.0, 0.88), "b": (4.5, 0.89), "c": (2.95, 0.88)}
LADDER = Scheduling(ladder=True)


def ladder_of(bundle: Bundle, *named: str, **options: Any) -> list[tuple[str, float]]:
    rules = Rules(scheduling=LADDER, models={"tiny": ModelTable(variants=named)})
    plan = plan_of(with_variants(bundle, VARIANTS, **options), rules)
    return [(rung.variant, round(rung.speed, 3)) for rung in plan.policy.ladder]


def test_without_rules_a_model_has_one_lane_one_variant_and_the_instances_of_its_bundle(bundle: Bundle) -> None:
    plan = plan_of(with_variants(bundle, VARIANTS, instances=2), Rules())
    assert plan.variants == (REFERENCE,)
    assert (plan.policy.instances, plan.policy.scale, len(plan.policy.lanes)) == (2, (2, 2), 1)
    assert plan.policy.company == "adaptive"


def test_the_ladder_goes_from_the_picked_variant_to_those_that_were_measured_to_be_faster(bundle: Bundle) -> None:
    # "c" is hardly faster than "a", which is no step.
    assert ladder_of(bundle) == [(REFERENCE, 1.0), ("b", 2.0), ("a", 3.0)]
    assert ladder_of(bundle, picked="b") == [("b", 1.0), ("a", 1.5)]


def test_an_operator_may_name_the_ladder_and_where_there_is_none_the_first_serves(bundle: Bundle) -> None:
    assert ladder_of(bundle, REFERENCE, "c", picked="a") == [(REFERENCE, 1.0), ("c", 3.051)]
    rules = Rules(models={"tiny": ModelTable(variants=("b", "a"))})
    assert plan_of(with_variants(bundle, VARIANTS), rules).variants == ("b",)


def test_a_ladder_without_steps_is_told(bundle: Bundle) -> None:
    plan = plan_of(with_variants(bundle, VARIANTS, picked="c"), Rules(scheduling=LADDER))
    assert plan.variants == ("c",)
    [words] = warnings_of([plan])
    assert "no variant was measured to be faster than 'c'" in words


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (Rules(models={"tiny": ModelTable(variants=("x",))}), "'x' is no variant"),
        (Rules(scheduling=LADDER, models={"tiny": ModelTable(variants=("a", "b"))}), "'b' was not measured to be"),
        (Rules(models={"tiny": ModelTable(min_instances=3, max_instances=2)}), "min_instances 3 and max_instances 2"),
        (Rules(scheduling=Scheduling(default_lane="x")), "default_lane: there is no lane 'x'"),
        (Rules(lanes=(LaneTable(name="a"), LaneTable(name="a"))), "names of their own"),
        (Rules(lanes=(LaneTable(name="a", min_share=0.5), LaneTable(name="b", min_share=0.5))), "add up to 1"),
        (Rules(lanes=(LaneTable(name="a", accuracy_floor=0.95),)), "wants accuracy 0.95; the first variant has 0.9"),
    ],
)
def test_rules_that_do_not_fit_are_refused(bundle: Bundle, rules: Rules, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plan_of(with_variants(bundle, VARIANTS), rules)


def test_rules_for_a_model_that_is_not_served_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\[models\.tinny\].*Served are: tiny"):
        check_models(Rules(models={"tinny": ModelTable()}), ["tiny"])


@pytest.mark.parametrize(
    ("table", "scale"),
    [
        (ModelTable(max_instances=4), (2, 2, 4)),
        (ModelTable(max_instances=1), (1, 1, 1)),
        (ModelTable(min_instances=1), (1, 2, 2)),
        (ModelTable(min_instances=3), (3, 3, 3)),
    ],
)
def test_instances_begin_as_planned_within_what_the_operator_allows(
    bundle: Bundle, table: ModelTable, scale: tuple[int, int, int]
) -> None:
    policy = plan_of(with_variants(bundle, VARIANTS, instances=2), Rules(models={"tiny": table})).policy
    assert (policy.scale[0], policy.instances, policy.scale[1]) == scale


def test_more_threads_than_cores_are_told_of_all_models_together(bundle: Bundle) -> None:
    plan = plan_of(with_variants(bundle, VARIANTS, threads=environment().cores_logical), Rules())
    assert warnings_of([plan]) == []
    [words] = warnings_of([plan, plan])
    assert "they slow each other down" in words


def test_what_the_bundle_measured_in_its_layout_seeds_the_table(small_bundle: Path) -> None:
    bundle = open_bundle(small_bundle)
    plan = plan_of(_Timed(bundle.path, bundle.manifest), Rules())
    assert plan.table.seconds(plan.variants[0], 4, None) == 0.012
    assert not plan_of(bundle, Rules()).table.knows(plan.variants[0])


def test_nothing_measured_refuses_nobody(bundle: Bundle) -> None:
    plan = plan_of(bundle, Rules())
    assert not plan.table.knows(REFERENCE)


def test_where_lower_is_better_a_floor_is_a_ceiling(bundle: Bundle) -> None:
    [lane] = lanes_of([LaneTable(name="a", accuracy_floor=0.2)], higher_is_better=False)
    assert lane.accuracy_floor == -0.2


def test_the_usual_lane_is_the_least_urgent_one_in_front_of_the_background() -> None:
    lanes = lanes_of([LaneTable(name="a"), LaneTable(name="b"), LaneTable(name="c", background=True)])
    assert default_lane(lanes, "") == "b"
    assert default_lane(lanes, "a") == "a"
    assert default_lane(lanes[2:], "") == "c"


class _Timed(Bundle):
    """A bundle with made-up service times in its evidence."""

    def record(self) -> Record:
        picked = self.manifest.picked
        serving = self.manifest.serving_of(picked)
        mine = ServiceTimes(instances=serving.instances, threads=serving.threads, batch=4, busy_ms=(11.0, 12.0, 13.0))
        other = ServiceTimes(instances=9, threads=1, batch=4, busy_ms=(99.0,))
        figures = dict.fromkeys(("latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "throughput_rps"), NOT_MEASURED)
        deployment = Deployment(
            variant=picked,
            serving=serving,
            reason="made up",
            capacity_rps=NOT_MEASURED,
            cost_per_million_usd=NOT_MEASURED,
            predicted=Prediction(load_rps=1.0, utilisation=0.5, **figures),
            times=(mine, other),
        )
        return msgspec.structs.replace(super().record(), deployments=(deployment,))
