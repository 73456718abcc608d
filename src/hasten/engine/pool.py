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
        self._free: queue.LifoQueue[T] = queue.LifoQueue()
        for item in items:
            self._free.put(item)
        self._closed = False

    @contextmanager
    def take(self) -> Generator[T]:
        """Hold an item; the one used last comes first, because its memory is still in the caches.

        Raises `EngineRunError` once the pool is closed.
        """
        if self._closed:
            raise EngineRunError("The session is closed.", remedy="Load the model again.")
        item = self._free.get()
        try:
            yield item
        finally:
            if not self._closed:
                self._free.put(item)

    def close(self) -> None:
        """Let go of all items; one that is being used goes when its caller is done. Safe to call twice."""
        self._closed = True
        while not self._free.empty():
            self._free.get_nowait()
