"""Claims share the error of accepting what is beyond the bound, as far as a share can be proven at all."""

from __future__ import annotations

from statistics import NormalDist

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.spec.evidence import Evidence
from hasten.spec.measurement import Figure, Measurement, MetricInfo, unmeasured
from hasten.spec.slo import Goal, Slo
from hasten.spec.target import Target
from hasten.spec.variant import Variant
from hasten.stats.bootstrap import Z95
from hasten.stats.change import binary_change, unseen_share
from hasten.verify.judge import judge, may_be_picked
from hasten.verify.shares import how_many_share, levels_of, quantile_of, settled

BOUND = 0.005
SAMPLES = 1294
FASTER = Figure(value=2.0, low=1.9, high=2.1, n=80)
METRIC = MetricInfo(name="top1", higher_is_better=True)


def claim(name: str, gained: int, lost: int, sharing: int) -> Evidence:
    """The evidence of a variant that changed so many answers of `SAMPLES`, with a share of the error among so many."""
    before, after = np.zeros(SAMPLES), np.zeros(SAMPLES)
    after[:gained] = 1
    before[gained : gained + lost] = 1
    figures = {at: binary_change(before, after, z=z) for at, z in levels_of(sharing).items()}
    figures |= {"accuracy_change": binary_change(before, after), "speedup": FASTER}
    measurement = Measurement(split="holdout", metric=METRIC).with_figures(figures)
    variant = Variant(id=name, target=Target(engine="openvino"))
    return judge(variant, measurement, Goal(slo=Slo(accuracy_drop_max=BOUND)))


def proven(claims: list[Evidence], drop_max: float = BOUND) -> list[str]:
    held = [(item.variant.id, item.measurement.accuracy_change_claimed.low) for item in claims]
    return [name for name, low in held if low is not None and -low <= drop_max]


def test_a_lone_claim_is_held_to_95_percent() -> None:
    assert how_many_share(1, BOUND, 10_000) == 1
    assert quantile_of(1) == Z95
    assert how_many_share(0, BOUND, 10_000) == 0


@pytest.mark.parametrize(("samples", "claims"), [(736, 1), (807, 1), (808, 2), (887, 2), (888, 3), (10_000, 3)])
def test_so_many_claims_share_as_could_be_proven_if_no_answer_changed(samples: int, claims: int) -> None:
    assert how_many_share(3, BOUND, samples) == claims


def test_where_a_samples_worth_is_not_known_beforehand_all_share() -> None:
    """As with an AUC: of 131 samples one may be worth a thousandth of it."""
    assert how_many_share(2, BOUND, 131) == 1
    assert how_many_share(2, BOUND, 131, counts_answers=False) == 2


@given(st.integers(0, 3), st.floats(0.0, 0.2), st.integers(1, 5000))
def test_all_claims_together_err_in_at_most_three_and_a_half_percent(claims: int, drop: float, samples: int) -> None:
    sharing = how_many_share(claims, drop, samples)
    assert sharing <= claims
    assert sharing * (1 - NormalDist().cdf(quantile_of(sharing))) <= 0.035 + 1e-9
    if sharing > 1:
        assert unseen_share(samples, quantile_of(sharing)) <= drop


def test_more_claims_are_held_to_longer_intervals() -> None:
    assert quantile_of(1) < quantile_of(2) < quantile_of(3)


def test_what_is_proven_leaves_its_share_to_the_others() -> None:
    """One answer lost of 1,294 is 0.54 points at a third of the error and 0.48 at a half."""
    beside_a_proven_one = settled([claim("bf16", 0, 1, 3), claim("lost", 0, 3, 3), claim("f32", 0, 0, 3)], 3, BOUND)
    assert proven(beside_a_proven_one) == ["bf16", "f32"]
    assert may_be_picked(beside_a_proven_one[0], Goal(slo=Slo(accuracy_drop_max=BOUND)))
    alone_with_others = settled([claim("bf16", 0, 1, 3), claim("lost", 0, 3, 3), claim("too", 0, 3, 3)], 3, BOUND)
    assert proven(alone_with_others) == []


def test_nothing_is_held_to_less_than_95_percent() -> None:
    last = settled([claim("same", 0, 0, 2), claim("worse", 1, 2, 2)], 2, 0.0045)[1]
    assert last.measurement.accuracy_change_claimed == last.measurement.accuracy_change


def test_a_claim_keeps_the_one_interval_that_it_is_held_to() -> None:
    before = claim("a", 0, 0, 3)
    after = settled([before], 3, BOUND)[0]
    assert set(before.measurement.extra) == {"accuracy_change_claimed_of_2"}
    assert after.measurement.extra == {}
    assert after == msgspec.structs.replace(before, measurement=after.measurement)


def test_a_claim_whose_change_could_not_be_measured_is_not_proven_and_keeps_no_other_interval() -> None:
    unknown = unmeasured("an interval needs at least 10 samples, there are 3")
    figures = {name: unknown for name in [*levels_of(3), "accuracy_change"]}
    measurement = Measurement(split="holdout", metric=METRIC).with_figures(figures)
    lost = judge(Variant(id="lost", target=Target(engine="openvino")), measurement, Goal())
    found = settled([lost, claim("bf16", 0, 1, 3), claim("f32", 0, 0, 3)], 3, BOUND)
    assert proven(found) == ["bf16", "f32"]
    assert (found[0].measurement.accuracy_change_claimed, found[0].measurement.extra) == (unknown, {})


def test_what_has_no_share_is_neither_proven_nor_takes_from_others() -> None:
    reference = claim("reference", 0, 0, 0)
    found = settled([reference, claim("a", 0, 1, 2), claim("b", 0, 0, 2)], 2, BOUND)
    assert found[0] is reference
    assert proven(found) == ["a", "b"]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=3), st.data())
def test_as_many_are_proven_as_by_holms_rule_in_any_order(changes: list[tuple[int, int]], data: st.DataObject) -> None:
    """Holm: with p-values in order, so long as the k-th smallest is within its share of what is left."""
    claims = [claim(str(number), *change, len(changes)) for number, change in enumerate(changes)]
    found = proven(settled(claims, len(claims), BOUND))
    again = proven(settled(data.draw(st.permutations(claims)), len(claims), BOUND))
    assert sorted(found) == sorted(again)
    levels = dict.fromkeys([*levels_of(len(claims)), "accuracy_change"]) if len(claims) > 1 else levels_of(1)
    passes = [sum(-(item.measurement.figure(at).low or 0.0) <= BOUND for at in levels) for item in claims]
    ranked = sorted(passes, reverse=True)
    kept = next((place for place, passed in enumerate(ranked) if passed < len(claims) - place), len(claims))
    assert len(found) == kept
