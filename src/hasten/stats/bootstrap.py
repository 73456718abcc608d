"""Intervals by resampling samples, honest about changes that were not seen.

A bootstrap resamples what happened. Where two of three hundred samples changed, or none, it believes that nothing
worse can happen; so each interval is widened by what a few unseen changes would add. Called by `change` only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Any

import numpy as np

__all__ = ["Z95", "Aggregate", "Rows", "draw_means", "draw_statistics", "widened", "worth_of_one"]

Rows = np.ndarray[Any, np.dtype[np.float64]]
Picks = np.ndarray[Any, np.dtype[np.int64]]
Aggregate = Callable[[Rows], float]

Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution

_RESAMPLES = 1999  # means are cheap
_COSTLY_RESAMPLES = 999  # metrics that are Python functions
_PROBES = 200  # leave-one-out evaluations that estimate what one sample is worth
_BLOCK = 2_000_000  # indices held at once: 16 MB

_NORMAL = NormalDist()


def draw_means(values: Rows, seed: int) -> Rows:
    """Return the means of 1999 resamples of `values` [n]."""
    return np.concatenate([values[picks].mean(axis=1) for picks in _blocks(len(values), _RESAMPLES, seed)])


def draw_statistics(n: int, evaluate: Callable[[Picks], float], seed: int) -> Rows:
    """Return `evaluate(picks)` for 999 resamples, each an index array [n]; NaN where it is undefined for one."""
    blocks = _blocks(n, _COSTLY_RESAMPLES, seed)
    return np.array([evaluate(picks) for block in blocks for picks in block], dtype=np.float64)


def widened(value: float, draws: Rows, *, n: int, changed: int, worth: float, z: float = Z95) -> tuple[float, float]:
    """Return the interval of the normal quantile `z` (95 % by default): BCa from the `draws`, each side widened (in
    squares) for unseen changes.

    The widening follows Bonett and Price (2012), who add one fictitious gain and one loss to paired shares, which
    adds 2 / n² to the variance. Here the two are of the size that a change has: the root mean square over the
    `changed` samples of `n`, and once (Laplace's rule of succession) `worth`, the most that one sample is worth in
    the metric. It fades with n to the power 1.5.
    """
    low, high = _bca(value, draws, z)
    total_square = float(draws.var()) * n * n  # n² times the variance of the draws: the sum of squared influences
    size_square = (total_square + worth * worth) / (changed + 1)
    margin = z * math.sqrt(2.0 * size_square) / (n + 2)
    return value - math.hypot(value - low, margin), value + math.hypot(high - value, margin)


def worth_of_one(rows: Rows, aggregate: Aggregate) -> float:
    """Return how far one sample can move n times `aggregate(rows)`: the range of its leave-one-out influences.

    For a mean this is the range of the scores. Probes up to 200 rows, evenly over the order of each column, ends
    included. Where all rows weigh alike (nothing was ever wrong), the metric itself or 1 stands in, whichever is
    larger.
    """
    left = np.array([aggregate(np.delete(rows, row, axis=0)) for row in _probes(rows)])
    left = left[np.isfinite(left)]
    span = float(np.ptp(left)) * (len(rows) - 1) if len(left) else 0.0
    return span if span > 1e-9 else max(abs(aggregate(rows)), 1.0)


def _probes(rows: Rows) -> Picks:
    columns = rows.reshape(len(rows), -1)
    count = min(len(rows), max(_PROBES // columns.shape[1], 2))
    ranks = np.linspace(0, len(rows) - 1, count).astype(np.int64)
    return np.unique(np.argsort(columns, axis=0, kind="stable")[ranks])


def _blocks(n: int, resamples: int, seed: int) -> Iterator[Picks]:
    """Yield index arrays [block, n] that add up to `resamples` rows, a bounded number of indices at a time."""
    rng, block = np.random.default_rng(seed), max(1, _BLOCK // n)
    for start in range(0, resamples, block):
        yield rng.integers(0, n, (min(block, resamples - start), n))


def _bca(value: float, draws: Rows, z: float) -> tuple[float, float]:
    """The bias-corrected and accelerated interval (Efron 1987) from bootstrap draws [B].

    The acceleration is a sixth of the draws' skewness, to which Efron's jackknife formula reduces for a mean and,
    to first order, for any smooth statistic; it saves n evaluations. Ties with the value count half, since shares
    take few values.
    """
    share = float(np.mean(draws < value) + np.mean(draws == value) / 2)
    shift = _NORMAL.inv_cdf(min(max(share, 0.5 / len(draws)), 1.0 - 0.5 / len(draws)))
    deviation, spread = draws - draws.mean(), float(draws.std())
    acceleration = float(np.mean(deviation**3)) / spread**3 / 6 if spread > 1e-100 else 0.0
    low, high = (float(q) for q in np.quantile(draws, [_level(shift, acceleration, end) for end in (-z, z)]))
    return min(low, value), max(high, value)


def _level(shift: float, acceleration: float, z: float) -> float:
    """The level of the draws that BCa reads in place of the normal level of `z`."""
    moved = shift + z
    return _NORMAL.cdf(shift + moved / max(1.0 - acceleration * moved, 0.1))
