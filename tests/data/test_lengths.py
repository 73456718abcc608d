"""A few lengths to pad to, chosen by the lengths that occur."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.data import Dataset
from hasten.data.lengths import buckets_for, describe_lengths, is_padding_mask, padded_length, typical_lengths, waste
from hasten.spec.signature import Signature
from hasten.spec.tensor import TensorSpec

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=30)


def positions(lengths: list[int], buckets: tuple[int, ...]) -> int:
    return sum(padded_length(length, buckets) for length in lengths)


def test_two_clusters_of_lengths_get_a_bucket_each() -> None:
    assert buckets_for([5, 6, 7, 8, 100, 101], 2) == (8, 104)


def test_more_buckets_than_lengths_waste_no_more_than_rounding() -> None:
    assert buckets_for([8, 16], 9) == (8, 16)


def test_no_lengths_need_no_buckets() -> None:
    assert buckets_for([], 4) == ()


@given(LENGTHS, st.integers(1, 3))
def test_no_other_choice_pads_less(lengths: list[int], count: int) -> None:
    chosen = buckets_for(lengths, count, multiple=8)
    assert len(chosen) <= count
    assert max(lengths) <= chosen[-1]
    longest = -(-max(lengths) // 8) * 8
    others = itertools.combinations(range(8, longest, 8), min(count, len(range(8, longest, 8)) + 1) - 1)
    assert positions(lengths, chosen) == min(positions(lengths, (*other, longest)) for other in others)


@given(LENGTHS, st.integers(1, 8))
def test_another_bucket_never_costs(lengths: list[int], count: int) -> None:
    fewer, more = buckets_for(lengths, count), buckets_for(lengths, count + 1)
    assert positions(lengths, more) <= positions(lengths, fewer)


def test_what_no_bucket_holds_keeps_its_length() -> None:
    assert padded_length(30, (8, 16)) == 30


@pytest.mark.parametrize(("lengths", "padded", "share"), [([10, 30], [40, 40], 0.5), ([], [], 0.0), ([4], [4], 0.0)])
def test_waste_is_the_share_of_positions_that_hold_nothing(lengths: list[int], padded: list[int], share: float) -> None:
    assert waste(lengths, padded) == share


TEXT = Signature(
    inputs=tuple(TensorSpec(name=name, dtype="INT64", shape=("n", "s")) for name in ("ids", "attention_mask")),
    outputs=(),
)


def texts(lengths: list[int], sent: int = 0) -> Dataset:
    rows = [np.pad(np.ones(length, np.int64), (0, max(0, sent - length))) for length in lengths]
    return Dataset(inputs=[{"ids": 7 * row, "attention_mask": row} for row in rows])


def test_how_lengths_spread_is_told() -> None:
    data = texts([4, 6, 20])
    assert describe_lengths(TEXT, data.subset(range(3))) == (
        "4 to 20 along ids, half at most 6; 0% of it padding, by attention_mask"
    )


def test_how_much_is_padding_is_told() -> None:
    data = texts([8, 24], sent=64)
    assert describe_lengths(TEXT, data.subset(range(2))) == (
        "all 64 along ids; 75% of it padding, by attention_mask; what cutting it gains repairs what clients send"
    )


def test_a_model_of_one_size_has_no_lengths() -> None:
    fixed = Signature(inputs=(TensorSpec(name="x", dtype="FP32", shape=("n", 4)),), outputs=())
    assert describe_lengths(fixed, Dataset(inputs={"x": np.zeros((3, 4), np.float32)}).subset(range(3))) is None


def test_lines_of_open_width_have_lengths_and_no_mask() -> None:
    lines = Signature(inputs=(TensorSpec(name="x", dtype="FP32", shape=("n", 3, "h", "w")),), outputs=())
    data = Dataset(inputs=[{"x": np.zeros((3, 48, width), np.float32)} for width in (320, 100)])
    assert describe_lengths(lines, data.subset(range(2))) == "100 to 320 along x, half at most 210"


def test_pictures_of_one_size_have_no_lengths_though_the_model_would_take_others() -> None:
    pictures = Signature(inputs=(TensorSpec(name="x", dtype="FP32", shape=("n", 3, "h", "w")),), outputs=())
    data = Dataset(inputs={"x": np.zeros((4, 3, 8, 8), np.float32)})
    assert describe_lengths(pictures, data.subset(range(4))) is None


@pytest.mark.parametrize("row", [[1, 1, 0, 1], [0, 0, 0], [2, 0], []])
def test_what_has_holes_or_other_numbers_is_no_padding_mask(row: list[int]) -> None:
    data = Dataset(inputs=[{"m": np.array(row, np.int64)}])
    assert not is_padding_mask("m", data.subset(range(1)))


@pytest.mark.parametrize(("held", "sent", "typical"), [([3, 9, 12], 0, (16, 16)), ([3, 9, 12], 64, (64, 64))])
def test_a_typical_length_is_that_of_what_is_sent(held: list[int], sent: int, typical: tuple[int, ...]) -> None:
    assert typical_lengths(TEXT, texts(held, sent=sent).subset(range(3))) == typical


def test_what_has_one_size_has_no_typical_length() -> None:
    fixed = Signature(inputs=(TensorSpec(name="x", dtype="FP32", shape=("n", 4)),), outputs=())
    assert typical_lengths(fixed, Dataset(inputs={"x": np.zeros((3, 4), np.float32)}).subset(range(3))) == ()
