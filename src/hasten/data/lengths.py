"""Lengths of sequences: how they spread, what padding wastes, and which few lengths to pad to instead.

Engines run every distinct length as a shape of its own, so lengths are rounded up to a few buckets. Which few waste
least follows from the lengths that occur: an exact one-dimensional partition by dynamic programming (Bellman 1973, "A
note on cluster analysis and dynamic programming"), here with each cluster's largest member as its price.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from hasten.data.dataset import Arrays, Samples
from hasten.spec.signature import Signature

__all__ = ["buckets_for", "describe_lengths", "is_padding_mask", "padded_length", "typical_lengths", "waste"]

# So many samples tell how lengths spread.
_LOOKED_AT = 256
# A share of padding that makes a difference in speed.
_MUCH = 0.05


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


def is_padding_mask(name: str, samples: Samples) -> bool:
    """Whether an input is ones over the text and zeros behind it in every sample, as attention masks are."""
    rows = (np.asarray(samples.inputs(at)[name]).reshape(-1) for at in range(len(samples)))
    return all(row.size and row[0] == 1 and np.isin(row, (0, 1)).all() and (np.diff(row) <= 0).all() for row in rows)


class _Listed:
    """Samples that were looked at already."""

    def __init__(self, samples: Sequence[Arrays]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def inputs(self, position: int, /) -> Arrays:
        return self._samples[position]


def describe_lengths(signature: Signature, samples: Samples) -> str | None:
    """Say in words how long the samples are along an open axis of an input (that of the batch aside), and how much of
    that is padding by an attention mask. None where all have one length and none is masked.
    """
    if not len(samples):
        return None
    looked = [samples.inputs(int(at)) for at in np.linspace(0, len(samples) - 1, min(len(samples), _LOOKED_AT))]
    tokens = [spec.name for spec in signature.inputs if spec.dtype in ("INT32", "INT64") and len(spec.shape) == 2]
    mask = next((name for name in tokens if name in looked[0] and is_padding_mask(name, _Listed(looked))), None)
    found = list(_open_lengths(signature, looked))
    name, sent = next(((name, sent) for name, sent in found if mask or len(set(sent)) > 1), ("", []))
    if not sent:
        return None
    words = f"{min(sent)} to {max(sent)} along {name}, half at most {int(np.median(sent))}"
    words = f"all {sent[0]} along {name}" if min(sent) == max(sent) else words
    if mask is None:
        return words
    held = [int(np.count_nonzero(sample[mask])) for sample in looked]
    share = waste(held, sent)
    repair = "; what cutting it gains repairs what clients send" if share >= _MUCH else ""
    return f"{words}; {share:.0%} of it padding, by {mask}{repair}"


def typical_lengths(signature: Signature, samples: Samples, multiple: int = 8) -> tuple[int, ...]:
    """Return the middle size along each open axis behind the batch, rounded up to a multiple: what a speed depends on
    beside the model. Empty where no axis is open.
    """
    if not len(samples):
        return ()
    looked = [samples.inputs(int(at)) for at in np.linspace(0, len(samples) - 1, min(len(samples), _LOOKED_AT))]
    return tuple(
        math.ceil(float(np.median(sent)) / multiple) * multiple for _, sent in _open_lengths(signature, looked)
    )


def _open_lengths(signature: Signature, looked: Sequence[Arrays]) -> Iterator[tuple[str, list[int]]]:
    """The sizes of all samples along each open axis behind the batch."""
    for spec in signature.inputs:
        for axis, size in enumerate(spec.shape[1:]):
            if isinstance(size, str) and all(np.ndim(sample[spec.name]) > axis for sample in looked):
                yield spec.name, [int(np.shape(sample[spec.name])[axis]) for sample in looked]
