"""Lengths of sequences: what padding wastes, and which few lengths to pad to instead.

Engines run every distinct length as a shape of its own, so lengths are rounded up to a few buckets. Which few waste
least follows from the lengths that occur: an exact one-dimensional partition by dynamic programming (Bellman 1973, "A
note on cluster analysis and dynamic programming"), here with each cluster's largest member as its price.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["buckets_for", "padded_length", "waste"]


def buckets_for(lengths: Sequence[int], count: int, multiple: int = 8) -> tuple[int, ...]:
    """Return at most `count` lengths, ascending multiples of `multiple`, so that padding each of `lengths` up to the
    next of them adds the fewest positions in all. The last holds the longest. Empty for no lengths.
    """
    held: dict[int, int] = {}
    for length in lengths:
        size = max(multiple, math.ceil(length / multiple) * multiple)
        held[size] = held.get(size, 0) + 1
    sizes = sorted(held)
    if not sizes:
        return ()
    # cost[i]: positions in all for the i smallest sizes, in as many buckets as the outer loop has counted.
    cost = [0.0] + [math.inf] * len(sizes)
    cuts: list[list[int]] = []
    for _ in range(min(count, len(sizes))):
        cost, cut = _one_more(sizes, held, cost)
        cuts.append(cut)
    chosen: list[int] = []
    end = len(sizes)
    for cut in reversed(cuts):
        if end == 0:
            break
        chosen.append(sizes[end - 1])
        end = cut[end]
    return tuple(reversed(chosen))


def _one_more(sizes: Sequence[int], held: dict[int, int], before: Sequence[float]) -> tuple[list[float], list[int]]:
    """Prices with one bucket more, and where it begins. A bucket may stay unused, so prices never rise."""
    prices, starts = [before[0]], [0]
    for end in range(1, len(sizes) + 1):
        best, start, inside = before[end], end, 0
        for first in range(end - 1, -1, -1):
            inside += held[sizes[first]]
            price = before[first] + inside * sizes[end - 1]
            if price < best:
                best, start = price, first
        prices.append(best)
        starts.append(start)
    return prices, starts


def padded_length(length: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds `length`; `length` itself where none does."""
    return next((size for size in sorted(buckets) if size >= length), length)


def waste(lengths: Sequence[int], padded: Sequence[int]) -> float:
    """The share of positions that hold nothing when sequences of `lengths` are sent as `padded`; 0 for none."""
    whole = sum(padded)
    return 1 - sum(lengths) / whole if whole else 0.0
