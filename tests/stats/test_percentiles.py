from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.stats.percentiles import mean, percentile, percentile_of_blocks, values_needed

TIMES = st.lists(st.floats(0.01, 1e4), min_size=72, max_size=120)


@pytest.mark.parametrize(("p", "needed"), [(50, 6), (5, 72), (95, 72), (99, 368), (99.9, 3688)])
def test_rarer_percentiles_need_more_values(p: float, needed: int) -> None:
    assert values_needed(p) == needed


@pytest.mark.parametrize("p", [0, 100, -1, 101])
def test_a_percentile_outside_0_to_100_is_an_error(p: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        values_needed(p)


@pytest.mark.parametrize("p", [50, 95, 99])
def test_a_percentile_is_refused_just_below_the_values_it_needs(p: float) -> None:
    needed = values_needed(p)
    refused = percentile([1.0] * (needed - 1), p)
    assert refused.value is None
    assert str(needed) in str(refused.reason)
    assert percentile([1.0] * needed, p).value == 1.0


@settings(deadline=None, max_examples=50, derandomize=True)
@given(TIMES, st.floats(5, 95))
def test_the_interval_of_a_percentile_contains_it(values: list[float], p: float) -> None:
    figure = percentile(values, p)
    assert figure.value is not None and figure.low is not None and figure.high is not None
    assert min(values) <= figure.low <= figure.value <= figure.high <= max(values)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(TIMES, st.floats(5, 95), st.floats(5, 95))
def test_percentiles_and_both_their_bounds_rise_with_p(values: list[float], p: float, q: float) -> None:
    lower, upper = percentile(values, min(p, q)), percentile(values, max(p, q))
    for one, other in ((lower.low, upper.low), (lower.value, upper.value), (lower.high, upper.high)):
        assert one is not None and other is not None
        assert one <= other * (1 + 1e-12)


def test_a_mean_needs_three_values() -> None:
    assert mean([1.0, 2.0]).value is None
    assert mean([1.0, 2.0, 3.0]).value == 2.0


def test_the_interval_of_a_mean_widens_when_neighbours_resemble_each_other() -> None:
    values = np.random.default_rng(1).normal(10, 1, 100)
    shuffled, sorted_ = mean(values.tolist()), mean(np.sort(values).tolist())
    assert shuffled.low is not None and sorted_.low is not None
    assert sorted_.low < shuffled.low


@pytest.mark.slow
def test_the_interval_of_p95_covers_at_least_95_percent_of_skewed_samples() -> None:
    rng, truth = np.random.default_rng(2), float(np.exp(1.6448536))
    figures = [percentile(rng.lognormal(0, 1, 200).tolist(), 95) for _ in range(1000)]
    covered = np.mean([f.low is not None and f.high is not None and f.low <= truth <= f.high for f in figures])
    assert 0.94 <= covered <= 0.985


def test_a_percentile_of_crowds_has_a_wider_interval_than_one_of_strangers() -> None:
    rng = np.random.default_rng(0)
    blocks = [(rng.normal(size=100) + 5 * (number % 10 == 0)).tolist() for number in range(30)]
    together = percentile_of_blocks(blocks, 99)
    apart = percentile([value for block in blocks for value in block], 99)
    assert together.value == apart.value
    assert together.low is not None
    assert apart.low is not None
    assert together.low < apart.low


def test_a_percentile_of_few_blocks_is_not_measured() -> None:
    assert percentile_of_blocks([[1.0] * 500] * 3, 99).value is None
    assert "blocks" in (percentile_of_blocks([[1.0] * 500] * 3, 99).reason or "")
