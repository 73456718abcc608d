"""Accuracy and its paired change, with intervals that hold where almost nothing changed.

All functions take values by sample, in the same sample order on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hasten.spec.measurement import Figure, unmeasured

__all__ = ["binary_change", "mean_change", "samples_to_prove", "share", "statistic", "statistic_change"]

Rows = np.ndarray[Any, np.dtype[np.float64]]
Aggregate = Callable[[Rows], float]

_Z = 1.959963984540054
_RESAMPLES = 1000


def share(right: Sequence[float] | Rows) -> Figure:
    """Return the share of ones among zeros and ones, with the score interval of Wilson (1927)."""
    values = np.asarray(right, dtype=np.float64)
    n = len(values)
    if n == 0:
        return unmeasured("no samples")
    p = float(values.mean())
    scale = 1 + _Z**2 / n
    centre = (p + _Z**2 / (2 * n)) / scale
    half = _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n * n)) / scale
    return Figure(
        value=p,
        low=min(p, max(0.0, centre - half)),
        high=max(p, min(1.0, centre + half)),
        n=n,
        method="Wilson",
    )


def binary_change(reference_right: Sequence[float] | Rows, candidate_right: Sequence[float] | Rows) -> Figure:
    """Return mean of the candidate minus mean of the reference for paired zeros and ones, with Tango's score
    interval.

    Tango (1998), "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design". Unlike a bootstrap it does not shrink to nothing where no sample changed: with n
    samples and no change the interval is about ±4/n.
    """
    before, after = np.asarray(reference_right, np.float64), np.asarray(candidate_right, np.float64)
    n = len(before)
    if n == 0:
        return unmeasured("no samples")
    gained = int(np.sum((after > 0.5) & (before < 0.5)))
    lost = int(np.sum((after < 0.5) & (before > 0.5)))
    value = (gained - lost) / n
    low = _root(lambda d: _tango(gained, lost, n, d) - _Z, -1.0, value)
    high = _root(lambda d: _tango(gained, lost, n, d) + _Z, value, 1.0)
    return Figure(value=value, low=low, high=high, n=n, method="paired, Tango score interval")


def mean_change(
    reference_scores: Sequence[float] | Rows, candidate_scores: Sequence[float] | Rows, *, seed: int = 0
) -> Figure:
    """Return the mean paired difference of real-valued scores, candidate minus reference, with a t interval.

    The t interval is widened to at least what one changed sample in z²/n would move, so that rare changes that
    the sample happens not to hold are not ruled out; `seed` is taken for symmetry with the resampling functions
    and is not needed.
    """
    from scipy.stats import t

    difference = np.asarray(candidate_scores, np.float64) - np.asarray(reference_scores, np.float64)
    n = len(difference)
    if n < 3:
        return unmeasured(f"a paired change needs at least 3 samples, there are {n}")
    value = float(difference.mean())
    half = float(t.ppf(0.975, n - 1)) * float(difference.std(ddof=1)) / math.sqrt(n)
    half = max(half, float(np.abs(difference).max()) * _Z**2 / (n + _Z**2))
    return Figure(value=value, low=value - half, high=value + half, n=n, method="paired t interval")


def statistic(rows: Rows, aggregate: Aggregate, *, seed: int = 0) -> Figure:
    """Return `aggregate(rows)` for rows [n, k], with a bootstrap percentile interval over samples (Efron 1979)."""
    n = len(rows)
    if n < 3:
        return unmeasured(f"an interval needs at least 3 samples, there are {n}")
    value = aggregate(rows)
    draws = [aggregate(rows[picks]) for picks in _picks(n, seed)]
    return _figure(value, draws, n)


def statistic_change(rows_reference: Rows, rows_candidate: Rows, aggregate: Aggregate, *, seed: int = 0) -> Figure:
    """Return `aggregate(candidate) - aggregate(reference)`, resampling the same samples on both sides.

    Where no sample changed at all, the interval is that of one sample in z²/n having changed: nothing was seen,
    which is not the same as nothing being there.
    """
    n = len(rows_reference)
    if n < 3:
        return unmeasured(f"a paired change needs at least 3 samples, there are {n}")
    value = aggregate(rows_candidate) - aggregate(rows_reference)
    draws = [aggregate(rows_candidate[picks]) - aggregate(rows_reference[picks]) for picks in _picks(n, seed)]
    figure = _figure(value, draws, n)
    least = _Z**2 / (n + _Z**2) if not np.any(rows_reference != rows_candidate) else 0.0
    assert figure.low is not None and figure.high is not None
    return Figure(
        value=value,
        low=min(figure.low, value - least),
        high=max(figure.high, value + least),
        n=n,
        method="paired bootstrap",
    )


def samples_to_prove(change: Figure, bound: float) -> int | None:
    """Return about how many samples would show that the change stays above `-bound`.

    The interval shrinks with the square root of the sample size. None where the middle of the interval is beyond
    the bound already, or where nothing is known.
    """
    if change.value is None or change.low is None or change.value <= -bound:
        return None
    ratio = (change.value - change.low) / (change.value + bound)
    return max(change.n, math.ceil(change.n * ratio**2))


def _tango(gained: int, lost: int, n: int, delta: float) -> float:
    """Score statistic for a true difference `delta`, with the constrained maximum-likelihood estimate of the
    nuisance.
    """
    a = 2.0 * n
    b = -gained - lost + (2 * n - gained + lost) * delta
    c = -lost * delta * (1 - delta)
    q = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * q + delta * (1 - delta))
    if variance <= 0:
        return math.copysign(math.inf, gained - lost - n * delta) if gained - lost != n * delta else 0.0
    return (gained - lost - n * delta) / math.sqrt(variance)


def _root(function: Callable[[float], float], left: float, right: float) -> float:
    """Bisect a falling function; at the edges of what is possible the edge is the answer."""
    for _ in range(60):
        middle = (left + right) / 2
        if function(middle) > 0:
            left = middle
        else:
            right = middle
    return (left + right) / 2


def _picks(n: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng(seed).integers(0, n, (_RESAMPLES, n))


def _figure(value: float, draws: Sequence[float], n: int) -> Figure:
    low, high = (float(q) for q in np.quantile(draws, [0.025, 0.975]))
    return Figure(value=value, low=min(low, value), high=max(high, value), n=n, method="bootstrap")
