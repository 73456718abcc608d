"""Offers: what a looser objective would buy, read off tuning data, and nothing where there is nothing to buy."""

from __future__ import annotations

import msgspec

from hasten.report import render
from hasten.report.room import offers
from hasten.spec.evidence import Check, Evidence, Record
from hasten.spec.measurement import Figure


def changed(record: Record, variant: str, **changes: object) -> Record:
    """The record with figures of one candidate's tuning measurement changed."""
    tuning = tuple(
        msgspec.structs.replace(item, measurement=msgspec.structs.replace(item.measurement, **changes))
        if item.variant.id == variant
        else item
        for item in record.tuning
    )
    return msgspec.structs.replace(record, tuning=tuning)


def only(record: Record, *variants: str) -> Record:
    kept = tuple(item for item in record.tuning if item.variant.id in (*variants, record.picked))
    return msgspec.structs.replace(record, tuning=kept)


def fig(value: float) -> Figure:
    return Figure(value=value, low=value - 0.002, high=value + 0.002, n=480)


def test_a_larger_drop_is_offered_with_what_it_buys_the_smallest_first(accepted: Record) -> None:
    found = offers(accepted)
    assert [offer.name for offer in found[:2]] == ["openvino int8", "onnxruntime int8"]
    assert found[0].give == "exact match drop ≤ 3.63 points (asked: 0.5 points)"
    assert found[0].get == "2.41× the reference’s speed instead of 2.24×"


def test_a_slower_candidate_is_offered_where_it_answers_better_or_needs_less_memory(accepted: Record) -> None:
    better = changed(
        accepted,
        "openvino-f32-t2",
        accuracy_change=fig(0.004),
        memory_peak_mb=Figure(value=200.0, low=196.0, high=204.0, n=5),
    )
    [offer] = offers(only(better, "openvino-f32-t2"))
    assert offer.give == "1.46× the reference’s speed instead of 2.24×, about 10.1 ms p50 instead of 6.61 ms"
    assert offer.get == "0.48 points better in exact match and 200 MB of memory instead of 312 MB"


def test_one_that_offers_hardly_more_than_a_faster_one_is_left_out(accepted: Record) -> None:
    both = only(accepted, "onnxruntime-f32-t2-fused", "onnxruntime-f32-t1", "reference")
    assert [offer.name for offer in offers(both)] == ["onnxruntime f32, 2 threads"]


def test_speeds_that_may_be_the_same_are_no_trade(accepted: Record) -> None:
    close = changed(accepted, "openvino-int8-t2", speedup=Figure(value=2.3, low=2.2, high=2.4, n=30))
    assert offers(only(close, "openvino-int8-t2")) == ()


def test_what_fails_another_objective_is_not_offered_for_its_speed(accepted: Record) -> None:
    late = Check(objective="memory_max_mb", bound=500.0, outcome="rejected", reason="too large")

    def fails(item: Evidence) -> Evidence:
        return msgspec.structs.replace(item, checks=(*item.checks, late))

    record = msgspec.structs.replace(accepted, tuning=tuple(fails(item) for item in accepted.tuning))
    assert offers(record) == ()


def test_where_the_reference_is_kept_the_trade_is_against_it(kept: Record) -> None:
    [offer] = offers(kept)
    assert offer.get == "2.63× the reference’s speed instead of 1.00×"


def test_for_an_error_rate_a_rise_is_what_is_given(error_rate: Record) -> None:
    assert offers(error_rate)[0].give.startswith("character error rate rise ≤ 1.61 points")


def test_a_record_without_measured_candidates_offers_nothing(accepted: Record) -> None:
    bare = msgspec.structs.replace(accepted, tuning=())
    assert offers(bare) == ()
    assert "What more room would buy" not in render(bare, title="m")
