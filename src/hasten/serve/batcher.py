"""Which waiting requests go to the engine together. Pure: time comes in as an argument.

First come, first served: the oldest request sets the shape, and later ones of the same shape join until the batch
is full.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

__all__ = ["Batcher", "Waiting"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """A request in the queue. `key` is equal for requests that can be stacked; times are seconds on the caller's
    clock.
    """

    id: int
    rows: int
    key: Hashable
    arrived: float
    deadline: float | None = None


class Batcher:
    """A queue that gives batches of at most `max_batch` rows. Dictionaries keep arrival order."""

    def __init__(self, max_batch: int, max_delay_s: float) -> None:
        self._max_batch = max_batch
        self._max_delay_s = max_delay_s
        self._queue: dict[int, Waiting] = {}
        self.rows = 0

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, request: Waiting) -> None:
        """Append a request."""
        self._queue[request.id] = request
        self.rows += request.rows

    def remove(self, id_: int) -> bool:
        """Take a request out without running it; False where it is not waiting."""
        found = self._queue.pop(id_, None)
        if found is None:
            return False
        self.rows -= found.rows
        return True

    def ids(self) -> list[int]:
        """Ids of all that wait, the oldest first."""
        return list(self._queue)

    def expired(self, now: float) -> list[int]:
        """Ids of requests whose deadline has passed."""
        return [r.id for r in self._queue.values() if r.deadline is not None and r.deadline <= now]

    def next_deadline(self) -> float | None:
        """The earliest deadline among waiting requests."""
        return min((r.deadline for r in self._queue.values() if r.deadline is not None), default=None)

    def ready_at(self) -> float | None:
        """When the oldest request has waited long enough for company; None where nothing waits."""
        oldest = next(iter(self._queue.values()), None)
        return None if oldest is None else oldest.arrived + self._max_delay_s

    def take(self, now: float, *, at_once: bool = False) -> list[Waiting]:
        """Return and remove the next batch, or nothing where it is neither full nor old enough."""
        batch = self._next()
        full = sum(request.rows for request in batch) >= self._max_batch
        due = self.ready_at()
        if due is None or not (full or at_once or now >= due):
            return []
        for request in batch:
            self.remove(request.id)
        return batch

    def _next(self) -> list[Waiting]:
        batch: list[Waiting] = []
        rows = 0
        for request in self._queue.values():
            if batch and (request.key != batch[0].key or rows + request.rows > self._max_batch):
                continue
            batch.append(request)
            rows += request.rows
            if rows >= self._max_batch:
                break
        return batch
