"""Which variants deserve a claim, and what they are ranked by."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from hasten.optimize.pick import accuracy_trouble, by_speed, finalists, gain_of, pick, why_not
from hasten.spec.evidence import Evidence
from hasten.spec.measurement import Figure, Measurement, MetricInfo
from hasten.spec.slo import Goal, Minimize, Objective, Slo
from hasten.spec.target import Precision, Runtime, Target
from hasten.spec.variant import Step, Variant
from hasten.stats.change import binary_change
from hasten.verify.judge import judge

ENERGY = Goal(slo=Slo(accuracy_drop_max=0.02), objective=Objective(minimize="energy_per_prediction_j"))
FAST = Goal(slo=Slo(accuracy_drop_max=0.02))


def fig(value: float) -> Figure:
    return Figure(value=value, low=value * 0.98, high=value * 1.02, n=40)


def unchanged(samples: int) -> Figure:
    return binary_change(np.ones(samples), np.ones(samples))


def evidence(name: str, goal: Goal, *, speed: float, energy: float, samples: int = 500) -> Evidence:
    measurement = Measurement(
        split="tuning",
        metric=MetricInfo(name="top1", higher_is_better=True),
        speedup=fig(speed),
        energy_gain=fig(energy),
        accuracy_change=unchanged(samples),
    )
    return judge(Variant(id=name, target=Target(engine=name)), measurement, goal)


def test_where_energy_is_minimized_the_thriftiest_is_picked_even_if_it_is_slower() -> None:
    found = [
        evidence("fast", ENERGY, speed=2.0, energy=1.1),
        evidence("thrifty", ENERGY, speed=0.8, energy=1.6),
    ]
    assert [item.variant.id for item in pick(found, ENERGY, 1000)] == ["thrifty", "fast"]


def test_where_energy_is_minimized_speed_alone_is_no_gain() -> None:
    reason = why_not(evidence("fast", ENERGY, speed=2.0, energy=0.9), ENERGY, 1000)
    assert reason is not None
    assert "energy" in reason


def test_only_what_speed_ranks_is_raced_once_more() -> None:
    assert len(finalists([evidence("a", FAST, speed=2.0, energy=1.0)], FAST, 1000)) == 1
    assert finalists([evidence("a", ENERGY, speed=2.0, energy=2.0)], ENERGY, 1000) == []


def test_the_run_off_has_the_best_of_each_kind_before_more_knobs_of_one() -> None:
    fast = [evidence("openvino", FAST, speed=3.0 - at / 10, energy=1.0) for at in range(5)]
    crowd = [
        msgspec.structs.replace(item, variant=msgspec.structs.replace(item.variant, id=f"fast-{at}"))
        for at, item in enumerate(fast)
    ]
    others = [evidence(name, FAST, speed=speed, energy=1.0) for name, speed in (("b", 2.0), ("c", 1.5), ("d", 1.4))]
    racing = [item.variant.id for item in finalists([*others, *crowd], FAST, 1000)]
    assert racing == ["fast-0", "fast-1", "b", "c"]


@pytest.mark.parametrize(
    ("minimize", "speed"),
    [
        ("latency_p50_ms", True),
        ("latency_p99_ms", True),
        ("cost_per_million", True),
        ("memory_mb", False),
        ("energy_per_prediction_j", False),
    ],
)
def test_speed_ranks_latency_and_cost_only(minimize: Minimize, speed: bool) -> None:
    goal = Goal(objective=Objective(minimize=minimize))
    assert by_speed(goal) is speed
    item = evidence("a", goal, speed=1.5, energy=1.2)
    assert (gain_of(item, goal) == 1.5) is speed


def test_an_exact_candidate_goes_on_where_the_holdout_data_can_prove_it() -> None:
    """190 samples without a change reach 2 points; 1,561 of them reach a quarter of one."""
    strict = Goal(slo=Slo(accuracy_drop_max=0.005))
    exact = evidence("graph", strict, speed=1.58, energy=1.0, samples=190)
    assert why_not(exact, strict, 1561) is None
    assert "would hardly prove it" in (why_not(exact, strict, 500) or "")


def test_where_no_answer_changed_and_one_samples_worth_is_unknown_the_claim_decides() -> None:
    """As with an AUC of 1 on few samples: the interval reaches far beyond the bound and is silent on holdout data."""
    item = evidence("exact", FAST, speed=1.5, energy=1.0)
    silent = Figure(value=0.0, low=-0.0533, high=0.0533, n=50, method="paired, BCa bootstrap")
    seen = msgspec.structs.replace(silent, value=-0.001)
    for change, promising in ((silent, True), (seen, False)):
        measured = msgspec.structs.replace(item.measurement, accuracy_change=change)
        assert (why_not(judge(item.variant, measured, FAST), FAST, 131) is None) is promising


def flipping(name: str, *, speed: float, gained: int, lost: int) -> Evidence:
    """A variant whose answers changed on so many of 400 samples."""
    before, after = np.ones(400), np.ones(400)
    before[:gained], after[gained : gained + lost] = 0, 0
    measurement = Measurement(
        split="tuning",
        metric=MetricInfo(name="top1", higher_is_better=True),
        speedup=fig(speed),
        accuracy_change=binary_change(before, after),
    )
    return judge(Variant(id=name, target=Target(engine=name)), measurement, FAST)


def test_a_surer_variant_goes_before_one_that_is_a_little_faster() -> None:
    sure, doubtful = flipping("sure", speed=1.7, gained=0, lost=0), flipping("doubtful", speed=1.9, gained=6, lost=9)
    assert why_not(doubtful, FAST, 1600) is None
    assert [item.variant.id for item in pick([sure, doubtful], FAST, 1600)] == ["sure", "doubtful"]
    assert [item.variant.id for item in finalists([sure, doubtful], FAST, 1600)] == ["sure", "doubtful"]


def test_a_variant_that_is_much_faster_may_be_less_sure() -> None:
    sure, doubtful = flipping("sure", speed=1.2, gained=0, lost=0), flipping("doubtful", speed=1.9, gained=6, lost=9)
    assert [item.variant.id for item in pick([sure, doubtful], FAST, 1600)] == ["doubtful", "sure"]


@pytest.mark.parametrize(("gained", "lost"), [(60, 20), (20, 0)])
def test_answers_that_changed_for_the_better_are_no_reason_to_trust(gained: int, lost: int) -> None:
    lucky = flipping("lucky", speed=1.9, gained=gained, lost=lost)
    assert why_not(lucky, FAST, 1600) is None
    assert "would hardly prove it" in (accuracy_trouble(lucky, FAST, 1600, errors=1.0) or "")


@pytest.mark.parametrize(("speed", "first"), [(2.2, "bf16-cascade"), (2.6, "bf16")])
def test_a_cascade_goes_before_what_it_makes_surer_unless_that_is_a_quarter_faster(speed: float, first: str) -> None:
    plain = Target(engine="openvino", precision="bf16")
    cascade = msgspec.structs.replace(plain, runtime=Runtime(cascade_below=0.1))
    found = [
        msgspec.structs.replace(evidence(name, FAST, speed=each, energy=1.0), variant=Variant(id=name, target=target))
        for name, each, target in (("bf16", speed, plain), ("bf16-cascade", 2.0, cascade))
    ]
    assert pick(found, FAST, 1000)[0].variant.id == first
    assert len(pick(found, FAST, 1000)) == 2, "the other stands by"


def narrow(name: str, precision: Precision, speed: float) -> Evidence:
    variant = Variant(id=name, target=Target(engine=name, precision=precision))
    return msgspec.structs.replace(evidence("x", FAST, speed=speed, energy=1.0), variant=variant)


def test_one_in_f32_stands_by_however_many_narrow_formats_are_faster() -> None:
    fast = [narrow("a", "bf16", 3.0), narrow("b", "int8", 2.8), narrow("c", "f16", 2.5)]
    exact = [narrow("d", "f32", 1.5), narrow("e", "f32", 1.3)]
    assert [item.variant.id for item in pick([*fast, *exact], FAST, 1000)] == ["a", "b", "d"]
    assert [item.variant.id for item in pick(fast, FAST, 1000)] == ["a", "b", "c"]


def with_shapes(lengths: tuple[int, ...], speed: float, engine: str = "openvino") -> Evidence:
    target = Target(engine=engine, precision="bf16", runtime=Runtime(lengths=lengths, single_row=not lengths))
    variant = Variant(id=f"{engine}-{'lengths' if lengths else 'row'}-{speed}", target=target)
    return msgspec.structs.replace(evidence("x", FAST, speed=speed, energy=1.0), variant=variant)


def test_a_graph_of_other_shapes_stands_by_for_the_first_pick_where_there_is_room() -> None:
    fast, same, other = with_shapes((8, 16), 2.0), with_shapes((8, 16), 1.9), with_shapes((), 1.5)
    slow = evidence("slow", FAST, speed=1.2, energy=1.0)
    assert pick([fast, same, other, slow], FAST, 1000) == [fast, other, slow]
    kinds = [evidence(name, FAST, speed=1.3, energy=1.0) for name in ("a", "b")]
    assert other not in pick([fast, other, *kinds], FAST, 1000)


def test_whether_the_engine_or_the_file_holds_a_cascade_is_no_handicap() -> None:
    hinted = Target(engine="openvino", precision="bf16", runtime=Runtime(cascade_below=0.1))
    inside = Variant(id="int8", target=Target(engine="openvino", precision="int8"), recipe=(Step(transform="cascade"),))
    found = [
        msgspec.structs.replace(evidence(variant.id, FAST, speed=speed, energy=1.0), variant=variant)
        for variant, speed in ((inside, 2.0), (Variant(id="bf16", target=hinted), 2.01))
    ]
    assert [item.variant.id for item in pick(found, FAST, 1000)] == ["bf16", "int8"]
