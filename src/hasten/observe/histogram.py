"""Histograms with fixed bounds, so that those of replicas add up, and percentiles read from their counts.

Bounds follow the R5 series of preferred numbers (ISO 3): each is about 1.6 times the one before, five in a decade. A
percentile that is read from them is therefore known within a factor of 1.6: to the bucket, and within it by a guess.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["COUNTS", "SECONDS", "Histogram", "quantile"]

_R5 = (1.0, 1.6, 2.5, 4.0, 6.3)
# From ten microseconds to a minute.
SECONDS = tuple(float(f"{step}e{decade}") for decade in range(-5, 2) for step in _R5)
COUNTS = tuple(float(2**power) for power in range(11))


class Histogram:
    """Counts by bucket: `counts[i]` values lie in (bounds[i-1], bounds[i]], the last one above all bounds.

    Adding costs a binary search and two additions; there is one writer, and readers copy.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Return (upper bound, values up to it) as Prometheus writes them: the last one, +Inf, counts all."""
        found: list[tuple[str, float]] = []
        so_far = 0
        # A copy in one step: the writer goes on meanwhile, and the count must be that of the buckets.
        for bound, count in zip((*self.bounds, None), self.counts[:], strict=True):
            so_far += count
            found.append(("+Inf" if bound is None else repr(bound), float(so_far)))
        return found


def quantile(bounds: Sequence[float], counts: Sequence[float], share: float) -> float | None:
    """Return the value below which `share` of the counted values lie, as `histogram_quantile` of Prometheus does it:
    linear within its bucket, and the highest bound for what lies above. None where nothing was counted.

    `counts` are of single buckets, one more than `bounds`, which ascend from above 0.
    """
    wanted, so_far = share * sum(counts), 0.0
    if sum(counts) <= 0:
        return None
    lower = 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count > 0 and so_far + count >= wanted:
            return lower + (bound - lower) * max(0.0, wanted - so_far) / count
        so_far += count
        lower = bound
    return bounds[-1]
