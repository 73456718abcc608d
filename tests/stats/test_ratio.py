from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.spec.measurement import Figure
from hasten.stats.ratio import compare, speedup

Series = np.ndarray[tuple[int], np.dtype[np.float64]]

ROUNDS = st.lists(st.tuples(st.floats(0.1, 100), st.floats(0.1, 100)), min_size=6, max_size=40)
TRUTH = 1.5


def bounds(figure: Figure) -> tuple[float, float, float]:
    assert figure.value is not None and figure.low is not None and figure.high is not None
    return figure.low, figure.value, figure.high


@settings(deadline=None, max_examples=40, derandomize=True)
@given(ROUNDS)
def test_the_interval_contains_the_speedup(rounds: list[tuple[float, float]]) -> None:
    low, value, high = bounds(speedup([a for a, _ in rounds], [b for _, b in rounds]))
    assert 0 < low <= value <= high


def lognormal_rounds(seed: int) -> tuple[Series, Series]:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(6, 60))
    return rng.lognormal(1, 0.2, n), rng.lognormal(0.5, 0.2, n)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 10_000))
def test_drift_that_both_sides_share_leaves_the_speedup_unchanged(seed: int) -> None:
    reference, candidate = lognormal_rounds(seed)
    drift = np.exp(np.cumsum(np.random.default_rng(seed + 1).normal(0, 0.3, len(reference))))
    steady = bounds(speedup(reference.tolist(), candidate.tolist()))
    drifting = bounds(speedup((reference * drift).tolist(), (candidate * drift).tolist()))
    assert drifting == pytest.approx(steady, rel=1e-9)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 10_000))
def test_swapping_the_sides_inverts_the_speedup_and_its_interval(seed: int) -> None:
    reference, candidate = (side.tolist() for side in lognormal_rounds(seed))
    low, value, high = bounds(speedup(reference, candidate))
    assert bounds(speedup(candidate, reference)) == pytest.approx((1 / high, 1 / value, 1 / low), rel=1e-9)


def test_fewer_than_six_rounds_are_refused() -> None:
    assert speedup([2.0] * 5, [1.0] * 5).value is None
    assert speedup([2.0] * 6, [1.0] * 6).value == pytest.approx(2.0)


def test_unpaired_rounds_are_an_error() -> None:
    with pytest.raises(ValueError, match="paired"):
        speedup([1.0] * 7, [1.0] * 6)


def test_a_round_without_measurable_time_is_refused() -> None:
    assert speedup([1.0] * 9 + [0.0], [1.0] * 10).value is None


def test_one_wild_round_does_not_move_the_speedup() -> None:
    rng = np.random.default_rng(3)
    reference, candidate = rng.normal(20, 0.2, 30), rng.normal(10, 0.1, 30)
    reference[7] *= 40
    low, _, high = bounds(speedup(reference.tolist(), candidate.tolist()))
    assert 1.97 < low < high < 2.03


@pytest.mark.parametrize("others", [1, 2, 4])
def test_rounds_that_tie_on_a_coarse_clock_leave_an_interval_of_a_clock_step(others: int) -> None:
    reference = [1.0] * (10 - others) + [1.1] * others
    low, value, high = bounds(speedup(reference, [1.0] * 10))
    assert value == 1.0
    assert high >= 1.1 - 1e-9
    assert low <= 1.0


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.021, 1.5, "faster"),
        (1.019, 1.5, "no_difference"),
        (0.5, 0.98, "slower"),
        (0.5, 0.981, "no_difference"),
        (None, None, "no_difference"),
    ],
)
def test_a_difference_needs_the_whole_interval_beyond_the_margin(
    low: float | None, high: float | None, expected: str
) -> None:
    reason = "too few rounds" if low is None else None
    assert compare(Figure(value=low, low=low, high=high, n=20, reason=reason)) == expected


def autocorrelated(rng: np.random.Generator, n: int, phi: float) -> Series:
    noise = rng.normal(0, 1, n)
    for i in range(1, n):
        noise[i] = phi * noise[i - 1] + np.sqrt(1 - phi * phi) * noise[i]
    return noise


def simulate(rng: np.random.Generator, kind: str, n: int) -> tuple[list[float], list[float]]:
    """Timings of both sides with a true ratio of 1.5; `kind` is what disturbs them."""
    reference, candidate = np.full(n, np.log(60.0)), np.full(n, np.log(40.0))
    if kind == "drift":
        walk = np.cumsum(rng.normal(0, 0.02, 2 * n))
        reference, candidate = reference + walk[::2], candidate + walk[1::2]
    half = autocorrelated(rng, n, 0.3 if kind == "autocorrelation" else 0.0) * 0.035
    reference, candidate = reference + half, candidate - half
    if kind == "spikes":
        reference = reference + (rng.random(n) < 0.04) * np.log(rng.uniform(2, 5, n))
        candidate = candidate + (rng.random(n) < 0.04) * np.log(rng.uniform(2, 5, n))
    return np.exp(reference).tolist(), np.exp(candidate).tolist()


@pytest.mark.slow
def test_the_speedup_interval_covers_the_truth_in_93_to_97_percent_of_disturbed_runs() -> None:
    hits: list[bool] = []
    for number, kind in enumerate(("drift", "spikes", "autocorrelation")):
        rng = np.random.default_rng([4, number])
        for trial in range(600):
            n = (12, 20, 30, 60)[trial % 4]
            low, _, high = bounds(speedup(*simulate(rng, kind, n), seed=trial))
            hits.append(low <= TRUTH <= high)
    assert 0.93 <= np.mean(hits) <= 0.97


@pytest.mark.slow
def test_a_model_compared_with_itself_differs_in_at_most_5_percent_of_runs() -> None:
    rng, verdicts = np.random.default_rng(5), []
    for trial in range(200):
        reference, candidate = simulate(rng, ("drift", "spikes", "autocorrelation")[trial % 3], 20)
        same = [time * TRUTH for time in candidate]
        verdicts.append(compare(speedup(reference, same, seed=trial)))
    assert verdicts.count("no_difference") >= 190
