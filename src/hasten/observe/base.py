"""What an observer is: the extension point `hasten.observe`.

A `Sink` is called with every event on the server's event loop: it must return within microseconds and never block.
Slow work (disks, networks) belongs on a thread of its own behind a bounded queue; what does not fit is counted as lost.
An `Exporter` is the name under which one is switched on, as in `hasten serve --observe otel`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from hasten.registry import Entry, Registry
from hasten.spec.event import Event
from hasten.spec.event import Sink as Hears

__all__ = ["Exporter", "Sink", "exporters", "tee"]


class Sink(Protocol):
    """Hears events until it is closed. It is spared those whose class is in its attribute `deaf`, where it has one."""

    def __call__(self, event: Event) -> None:
        """Take one event."""
        ...

    def lost(self) -> Mapping[str, int]:
        """Return how many observations are gone, by reason."""
        ...

    def close(self) -> None:
        """Write what is left, within a few seconds."""
        ...


class Exporter(Protocol):
    """Opens a sink for one server. Its configuration comes from the environment."""

    name: str

    def open(self) -> Sink:
        """Return a new sink. Raises `UsageError` for what is wrong with its configuration, `MissingError`."""
        ...


exporters: Registry[Exporter] = Registry(
    "observe",
    [Entry(name="otel", target="hasten.observe.otel:OpenTelemetry", requires="opentelemetry", extra="otel")],
)


def tee(observers: Sequence[Hears]) -> Hears:
    """Return one that tells all of them, in order, also after one that failed; its error is raised in the end. None is
    told of events of the classes in its attribute `deaf`.
    """
    hearing: dict[type[Event], Sequence[Hears]] = {}

    def tell(event: Event) -> None:
        kind = type(event)
        hearers = hearing.get(kind)
        if hearers is None:
            hearers = hearing[kind] = [one for one in observers if kind not in getattr(one, "deaf", ())]
        failure: Exception | None = None
        for observer in hearers:
            try:
                observer(event)
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure

    return tell
