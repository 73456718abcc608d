"""What an engine runs before it takes requests, so that no client waits for what happens only the first time.

Runtimes choose kernels, compile and allocate for each new shape. So every batch size that the policy may form runs
once, for each shape of the golden samples; both are bounded, and so is the time. The sizes that the scheduler compares
run twice more, so that it need not find out under load how long they take.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Sequence

from hasten.serve.batch import Tensors, rows_of, shape_key
from hasten.serve.events import Warmed
from hasten.serve.sizes import compared

__all__ = ["Stopwatch", "batches", "distinct", "sizes"]

_LONGEST_S = 10.0
_SHAPES = 4
_ALL, _MORE = 32, 32
_AGAIN = 2


def sizes(max_batch: int) -> list[int]:
    """Batch sizes in the order to run them: the largest, one, then the others. All of them up to 32; where batches may
    be larger, 32 more, evenly spread.
    """
    others = set(range(2, min(max_batch, _ALL + 1)))
    if max_batch > _ALL + 1:
        step = (max_batch - _ALL) / _MORE
        others |= {round(_ALL + step * number) for number in range(1, _MORE)}
    # The largest first: allocators keep its memory, in which all others find room.
    return [*dict.fromkeys((max_batch, 1)), *sorted(others - {1, max_batch})]


def distinct(samples: Sequence[Tensors]) -> list[Tensors]:
    """Return one sample of each shape, at most four."""
    kinds: dict[Hashable, Tensors] = {}
    for sample in samples:
        kinds.setdefault(tuple((name, array.dtype.str, array.shape[1:]) for name, array in sample.items()), sample)
    return list(kinds.values())[:_SHAPES]


def batches(samples: Sequence[Tensors], max_batch: int) -> Iterator[list[Tensors]]:
    """Yield batches of samples of one row each: every size once, then those that are compared twice. After 10 s only
    what must run still does: the largest and the smallest batch of each shape.
    """
    started = time.monotonic()
    for size in sizes(max_batch):
        for sample in samples:
            if size in (1, max_batch) or time.monotonic() - started < _LONGEST_S:
                yield [sample] * size
    for size in compared(max_batch) * _AGAIN:
        for sample in samples:
            if time.monotonic() - started < _LONGEST_S:
                yield [sample] * size


class Stopwatch:
    """How long the batches of one engine took, by variant, size and shape."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, int, Hashable], list[float]] = {}

    def ran(self, variant: str, batch: Sequence[Tensors], seconds: float) -> None:
        """A batch took so long."""
        place = variant, sum(map(rows_of, batch)), shape_key(batch[0])
        self._seconds.setdefault(place, []).append(seconds)

    def found(self) -> list[Warmed]:
        """What to tell the scheduler: nothing of what ran once only, which may have been compiled meanwhile."""
        return [Warmed(*place, tuple(seconds)) for place, seconds in self._seconds.items() if len(seconds) > 1]
