"""A few lengths to pad to, chosen by the lengths that occur."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.data.lengths import buckets_for, padded_length, waste

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
