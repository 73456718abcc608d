"""What an observer is: the extension point `hasten.observe`.

A `Sink` is called with every event on the server's event loop: it must return within microseconds, never block, and
never raise. Slow work (disks, networks) belongs on a thread of its own behind a bounded queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hasten.registry import Registry
from hasten.spec.event import Event
from hasten.spec.event import Sink as Hears

__all__ = ["Sink", "sinks", "tee"]


class Sink(Protocol):
    """Hears events until it is closed."""

    def __call__(self, event: Event) -> None:
        """Take one event."""
        ...

    def close(self) -> None:
        """Write what is left, within a second or two."""
        ...


sinks: Registry[Sink] = Registry("observe", [])


def tee(observers: Sequence[Hears]) -> Hears | None:
    """Return one that tells all of them, in order; None for nobody."""
    if len(observers) < 2:
        return observers[0] if observers else None

    def tell(event: Event) -> None:
        for observer in observers:
            observer(event)

    return tell
