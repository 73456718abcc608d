"""Who leads, whom a glance rules out, and what a trial teaches."""

from __future__ import annotations

import math

import pytest

from hasten.optimize.forecast import WORTH, Prospect
from hasten.optimize.standing import Leader, behind, is_open_form, leader_of, lesson_of, stand_by
from hasten.optimize.trials import Trial
from hasten.optimize.wish import Wish
from hasten.spec.evidence import Evidence, Rejection
from hasten.spec.measurement import Figure, Measurement, MetricInfo, unmeasured
from hasten.spec.slo import Goal, Slo
from hasten.spec.target import Precision, Runtime, Target
from hasten.spec.variant import Variant
from hasten.verify.judge import judge

GOAL = Goal(slo=Slo(accuracy_drop_max=0.02))


def figure(value: float, reach: float = 0.02, n: int = 1000) -> Figure:
    return Figure(value=value, low=value - reach, high=value + reach, n=n)


def evidence(name: str, speed: float, change: Figure | None = None) -> Evidence:
    variant = Variant(id=name, target=Target(engine="openvino"))
    measurement = Measurement(
        split="tuning",
        metric=MetricInfo(name="top1", higher_is_better=True),
        speedup=figure(speed),
        accuracy_change=change or figure(0.0, 0.005),
    )
    return judge(variant, measurement, GOAL)


def test_the_fastest_safe_candidate_leads() -> None:
    found = [evidence("a", 1.2), evidence("b", 1.5), evidence("wrong", 3.0, figure(-0.2, 0.01))]
    leader = leader_of(found, GOAL, 1000)
    assert (leader.id, leader.speed, leader.low) == ("b", 1.5, 1.48)


def test_the_reference_leads_where_nothing_is_faster() -> None:
    assert leader_of([evidence("slow", 0.8)], GOAL, 1000) == Leader()


def test_a_leader_is_to_be_beaten_where_it_is_likely_to_stand_and_not_where_its_luck_put_it() -> None:
    assert Leader(id="lucky", speed=1.79, low=1.29).to_beat == pytest.approx(
        1.79 * math.exp(-math.log(1.79 / 1.29) / 1.96)
    )
    assert 1.29 < Leader(id="lucky", speed=1.79, low=1.29).to_beat < 1.55
    assert Leader(id="sure", speed=1.79, low=1.78).to_beat > 1.78
    assert Leader().to_beat == 1.0


@pytest.mark.parametrize(("speed", "stopped"), [(1.2, True), (1.42, False), (1.6, False)])
def test_a_glance_rules_out_only_what_is_far_behind(speed: float, stopped: bool) -> None:
    reason = behind(Leader(id="b", speed=1.5, low=1.48))(figure(speed, n=8))
    assert (reason is not None) == stopped
    if reason:
        assert reason == "Stopped after 8 rounds: 1.20 times (1.18 to 1.22) as fast as the reference; b reaches 1.50."


def test_a_glance_that_saw_nothing_rules_nothing_out() -> None:
    assert behind(Leader())(unmeasured("a round took no measurable time")) is None


def test_a_trial_that_was_stopped_early_still_teaches_its_speed() -> None:
    item = evidence("a", 0.5)
    lost = Trial(
        variant=item.variant,
        rejection=Rejection(variant=item.variant, stage="tuning", reason="Stopped.", evidence=item),
        seconds=3.0,
    )
    lesson = lesson_of(Wish(id="a", target=item.variant.target), lost, GOAL, 1000)
    assert lesson.log_gain == pytest.approx(math.log(0.5))
    assert lesson.spread == pytest.approx((math.log(0.52) - math.log(0.48)) / 3.92)
    assert lesson.safe is None
    assert lesson.seconds == 3.0


def test_a_trial_teaches_whether_answers_were_good_enough() -> None:
    for change, safe in ((figure(0.0, 0.005), True), (figure(-0.3, 0.01), False)):
        item = evidence("a", 1.5, change)
        trial = Trial(variant=item.variant, evidence=item)
        assert lesson_of(Wish(id="a", target=item.variant.target), trial, GOAL, 1000).safe is safe


def prospect(precision: Precision, worth: float = 0.1, name: str = "", target: Target | None = None) -> Prospect:
    one = Wish(id=name or precision, target=target or Target(engine="openvino", precision=precision))
    return Prospect(wish=one, gain=1.1, low=1.0, high=1.2, safe=0.9, worth=worth, seconds=5.0)


NARROW = Target(engine="openvino", precision="bf16", threads=2, runtime=Runtime(lengths=(8, 16), cascade_below=0.1))
SURE = Leader(id="sure", speed=1.1, low=1.08)


def names(found: Prospect | None) -> str | None:
    return found.wish.id if found else None


def test_what_leads_has_its_turn_in_f32_whatever_is_expected_of_it() -> None:
    same = Target(engine="openvino", precision="f32", threads=2, runtime=Runtime(lengths=(8, 16)))
    ranked = [prospect("int8"), prospect("f32", name="other"), prospect("f32", worth=0.0, name="same", target=same)]
    found = stand_by(ranked, [], NARROW, SURE)
    assert found is not None
    assert found.wish.id == "same"
    assert found.worth >= WORTH, "the search would not try it otherwise"


def test_the_open_form_of_graphs_for_a_few_lengths_has_its_turn_too() -> None:
    leader = Target(engine="openvino", precision="bf16", threads=2, runtime=Runtime(lengths=(8, 16)))
    form = Target(engine="openvino", precision="bf16", threads=2, runtime=Runtime(single_row=True))
    ranked = [prospect("int8"), prospect("bf16", worth=0.0, name="open", target=form)]
    found = stand_by(ranked, [], leader, SURE)
    assert names(found) == "open"
    assert found is not None and found.worth >= WORTH, "the search would not try it otherwise"
    item = evidence("open", 1.4)
    assert stand_by(ranked, [Trial(variant=Variant(id="open", target=form), evidence=item)], leader, SURE) is None


@pytest.mark.parametrize(
    "other",
    [
        Target(engine="openvino", precision="f32", threads=2),
        Target(engine="openvino", precision="bf16", threads=1),
        Target(engine="openvino", precision="bf16", threads=2, runtime=Runtime(lengths=(8,))),
        Target(engine="openvino", precision="bf16", threads=2, runtime=Runtime(flush_denormals=True)),
    ],
)
def test_an_open_form_differs_in_its_shapes_alone(other: Target) -> None:
    assert not is_open_form(other, NARROW)
    assert not is_open_form(Target(engine="openvino", precision="bf16", threads=2), None)


def test_where_that_was_no_faster_the_best_in_f32_stands_by() -> None:
    same = Target(engine="openvino", precision="f32", threads=2, runtime=Runtime(lengths=(8, 16)))
    item = evidence("slow", 0.8)
    tried = [Trial(variant=Variant(id="slow", target=same), evidence=item, seconds=1.0)]
    ranked = [prospect("int8"), prospect("f32", name="first"), prospect("f32", name="second")]
    assert names(stand_by(ranked, tried, NARROW, Leader())) == "first"


def test_what_is_not_worth_a_trial_does_not_stand_by() -> None:
    assert stand_by([prospect("bf16"), prospect("f32", worth=WORTH / 2)], [], NARROW, Leader()) is None


@pytest.mark.parametrize(
    ("leader", "sure"),
    [(None, Leader()), (Target(engine="openvino"), SURE), (NARROW, SURE)],
    ids=["the reference leads", "f32 leads", "one stands by"],
)
def test_nothing_stands_by_where_nothing_could_fail_or_something_does(leader: Target | None, sure: Leader) -> None:
    assert stand_by([prospect("f32")], [], leader, sure) is None
