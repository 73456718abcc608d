from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.observe.histogram import SECONDS, Histogram, quantile

durations = st.floats(min_value=0, max_value=1e4, allow_nan=False)


def filled(values: list[float]) -> Histogram:
    histogram = Histogram(SECONDS)
    for value in values:
        histogram.add(value)
    return histogram


@given(st.lists(durations))
def test_no_value_is_lost_and_none_is_counted_twice(values: list[float]) -> None:
    histogram = filled(values)
    assert sum(histogram.counts) == len(values)
    assert histogram.total == pytest.approx(sum(values))
    assert histogram.cumulative()[-1] == ("+Inf", len(values))


@given(st.lists(durations))
def test_each_bucket_counts_what_is_at_most_its_bound(values: list[float]) -> None:
    for bound, count in filled(values).cumulative():
        assert count == sum(value <= float(bound) for value in values)


@given(st.lists(durations), st.lists(durations))
def test_histograms_of_replicas_add_up_to_the_histogram_of_both(one: list[float], other: list[float]) -> None:
    added = [a + b for a, b in zip(filled(one).counts, filled(other).counts, strict=True)]
    assert added == filled(one + other).counts


@given(st.lists(st.floats(min_value=1e-5, max_value=60), min_size=1), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_lies_in_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    read = quantile(SECONDS, filled(values).counts, share)
    true = sorted(values)[max(0, math.ceil(len(values) * share) - 1)]
    index = next(i for i, bound in enumerate(SECONDS) if true <= bound)
    assert read is not None
    assert (0 if index == 0 else SECONDS[index - 1]) <= read <= SECONDS[index] * (1 + 1e-12)


def test_nothing_counted_gives_no_percentile() -> None:
    assert quantile(SECONDS, [0] * (len(SECONDS) + 1), 0.5) is None


def test_what_lies_above_all_bounds_reads_as_the_highest() -> None:
    assert quantile(SECONDS, filled([1e6]).counts, 0.5) == SECONDS[-1]


def test_bounds_ascend_by_at_most_a_factor_of_1_6_and_span_ten_microseconds_to_a_minute() -> None:
    steps = [later / earlier for earlier, later in itertools.pairwise(SECONDS)]
    assert min(steps) > 1.5
    assert max(steps) <= 1.6 + 1e-9
    assert SECONDS[0] == 1e-5
    assert SECONDS[-1] >= 60
