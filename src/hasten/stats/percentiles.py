"""Percentiles and means with 95 % intervals; a percentile is refused where the sample is too small for it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hasten.spec.measurement import Figure, unmeasured

__all__ = ["mean", "percentile", "percentile_of_blocks", "values_needed"]

_TAIL = 0.025
_RESAMPLES = 400
# Of fewer blocks the bootstrap knows too little.
_FEWEST_BLOCKS = 6


def values_needed(p: float) -> int:
    """Return how many values the `p`-th percentile (0 < p < 100) needs: 6 for p50, 72 for p95, 368 for p99.

    The largest value must lie above the true percentile, and the smallest below it, with probability 97.5 % each.
    ValueError unless 0 < p < 100.
    """
    if not 0 < p < 100:
        raise ValueError(f"a percentile lies between 0 and 100, and {p} does not; write 99 for p99")
    share = max(p, 100 - p) / 100
    return math.ceil(math.log(_TAIL) / math.log(share))


def percentile(values: Sequence[float], p: float) -> Figure:
    """Return the `p`-th percentile (0 < p < 100) in the unit of `values`, with a distribution-free interval.

    The interval runs between two order statistics that enclose the true percentile with 95 % probability whatever
    the distribution, by the binomial law (David and Nagaraja, Order Statistics, 2003, section 7.1). Without
    enough values the figure is unmeasured and says how many would do.
    """
    from scipy.stats import binom

    n, needed = len(values), values_needed(p)
    if n < needed:
        return unmeasured(f"p{p:g} needs at least {needed} values, there are {n}")
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    below = int(binom.ppf(_TAIL, n, p / 100))
    above = int(binom.ppf(1 - _TAIL, n, p / 100))
    middle = float(np.percentile(ordered, p))
    low = float(ordered[max(below - 1, 0)])
    high = float(ordered[min(above, n - 1)])
    return Figure(value=middle, low=min(low, middle), high=max(high, middle), n=n, method="order statistics")


def percentile_of_blocks(blocks: Sequence[Sequence[float]], p: float) -> Figure:
    """Return the `p`-th percentile of all values, with an interval for values that resemble their neighbours: those of
    one block belong together, blocks are independent or nearly so.

    Latencies under load come in crowds: whoever waits, waits with others, and the slowest hundredth of thousands of
    requests may be three crowds. The interval is that of a bootstrap over blocks (Künsch 1989), and no narrower than
    that of `percentile`. Without enough values or blocks the figure is unmeasured and says how many would do.
    """
    kept = [np.asarray(block, dtype=np.float64) for block in blocks if len(block)]
    plain = percentile(np.concatenate(kept).tolist() if kept else [], p)
    if plain.value is None or plain.low is None or plain.high is None:
        return plain
    if len(kept) < _FEWEST_BLOCKS:
        return unmeasured(f"p{p:g} needs at least {_FEWEST_BLOCKS} blocks of time, there are {len(kept)}")
    rng = np.random.default_rng(0)
    drawn = [
        float(np.percentile(np.concatenate([kept[at] for at in rng.integers(len(kept), size=len(kept))]), p))
        for _ in range(_RESAMPLES)
    ]
    low, high = np.percentile(drawn, [100 * _TAIL, 100 * (1 - _TAIL)])
    return Figure(
        value=plain.value,
        low=min(plain.low, float(low)),
        high=max(plain.high, float(high)),
        n=plain.n,
        method=f"bootstrap over {len(kept)} blocks",
    )


def mean(values: Sequence[float]) -> Figure:
    """Return the mean, with a t interval widened by the lag-1 autocorrelation of the series (Wilks 2011, section
    5.2.4).

    Values must be in time order. Fewer than three give no interval and are refused.
    """
    from scipy.stats import t

    n = len(values)
    if n < 3:
        return unmeasured(f"a mean needs at least 3 values, there are {n}")
    series = np.asarray(values, dtype=np.float64)
    middle, spread = float(series.mean()), float(series.std(ddof=1))
    half = float(t.ppf(1 - _TAIL, n - 1)) * spread / math.sqrt(n) * inflation(series)
    return Figure(value=middle, low=middle - half, high=middle + half, n=n, method="t interval")


def inflation(series: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """Return by how much the standard error of a mean grows because neighbours in the series resemble each other.

    sqrt((1 + r) / (1 - r)) for lag-1 autocorrelation r, the exact limit for a first-order autoregressive series.
    Only the part of r above half its own standard error 1/sqrt(n) counts: otherwise independent series would be
    punished for chance. r is corrected for its small-sample bias of (1 + 4 r) / n (Kendall 1954).
    """
    n = len(series)
    centred = series - series.mean()
    power = float(centred @ centred)
    if power == 0 or n < 4:
        return 1.0
    raw = float(centred[1:] @ centred[:-1]) / power
    if raw <= 0.5 / math.sqrt(n):
        return 1.0
    r = min((raw + 1 / n) / (1 - 4 / n), 0.9) if n > 8 else min(raw, 0.9)
    return math.sqrt((1 + r) / (1 - r))
