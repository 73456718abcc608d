"""Who observes a server: given by whoever starts it, because serving knows nothing of its observers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hasten.spec.event import Gauges, Sink

__all__ = ["Page", "Telemetry"]

# From what the client accepts, how the models stand and how many bytes of answers clients have not read, to content
# type and body. Called on a thread of its own.
Page = Callable[[str, Sequence[Gauges], int], tuple[str, bytes]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Telemetry:
    """`sink` hears every event, on the event loop; `page` is what GET /metrics answers. Either may be absent."""

    sink: Sink | None = None
    page: Page | None = None
