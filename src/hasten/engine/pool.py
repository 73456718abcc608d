"""What callers share out among themselves: one item for one caller at a time, others wait for it."""

from __future__ import annotations

import queue
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Generic, TypeVar

from hasten.errors import EngineRunError

__all__ = ["Pool"]

T = TypeVar("T")


class Pool(Generic[T]):
    """Infer requests, sessions, bindings: `Runtime.instances` of them, so that as many callers run at once."""

    def __init__(self, items: Iterable[T]) -> None:
        # None stands for a pool that is closed: it is handed from one waiting caller to the next.
        self._free: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        for item in items:
            self._free.put(item)
        self._closed = False

    @contextmanager
    def take(self) -> Generator[T]:
        """Hold an item. Raises `EngineRunError` once the pool is closed, to whoever waits for an item too."""
        item = self._free.get()
        if item is None:
            self._free.put(None)
            raise EngineRunError("The session is closed.", remedy="Load the model again.")
        try:
            yield item
        finally:
            self._free.put(None if self._closed else item)

    def close(self) -> None:
        """Let go of all items; one that is being used goes when its caller is done. Safe to call twice."""
        self._closed = True
        while not self._free.empty():
            self._free.get_nowait()
        self._free.put(None)
