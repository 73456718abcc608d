"""Tells an observer what one model's driver does. Where nobody listens, nothing is put together.

An observer that fails is complained of on the loop's exception handler, and serving goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hasten.errors import RequestError
from hasten.serve.events import EngineDown, EngineLost, EngineUp
from hasten.serve.events import Event as Happening
from hasten.serve.origin import Origin
from hasten.spec.event import Cached, Event, LevelChanged, Ran, Refused, Served, Sink, WorkerChanged

__all__ = ["NEWS", "Batch", "Teller", "emit", "refusal_event"]

_STATES: dict[type[Happening], Literal["started", "died", "lost"]] = {
    EngineUp: "started",
    EngineDown: "died",
    EngineLost: "lost",
}
# What of the scheduler's events observers are told: instances that come and go.
NEWS = frozenset(_STATES)


@dataclass(slots=True, eq=False)
class Batch:
    """A batch on its way through an engine: when it closed and why, and since when an instance had been free then."""

    rows: int
    closed: str
    closed_at: float
    free_since: float
    variant: str = ""
    requests: int = 0
    started: float = 0.0
    finished: float = 0.0


class Teller:
    """Puts events of one model together for `sink`. Lives on the event loop."""

    def __init__(self, model: str, variant: str, sink: Sink | None) -> None:
        self._model = model
        self._variant = variant
        self._sink = sink
        self._started: set[int] = set()

    def served(self, rows: int, origin: Origin, arrived: float, ran: Batch, answering: float) -> None:
        """An answer to so many rows has just been written, which took from `answering` until now.

        Of the wait before the engine, what passed while an instance was free went into waiting for company.
        """
        if self._sink is None:
            return
        if origin.error is not None:
            self.refused(origin, origin.error)
            return
        now, received = time.monotonic(), origin.received
        free_since, started, decode_s = ran.free_since, ran.started, arrived - received
        batch_s = ran.closed_at - (arrived if arrived > free_since else free_since)
        if batch_s < 0.0:
            batch_s = 0.0
        queue_s = started - arrived - batch_s
        event = Served(
            model=self._model,
            variant=ran.variant,
            lane=origin.lane,
            batch=ran.requests,
            queue_s=queue_s if queue_s > 0.0 else 0.0,
            engine_s=ran.finished - started,
            rows=rows,
            closed=ran.closed,
            wire_s=decode_s + now - answering,
            decode_s=decode_s,
            batch_s=batch_s,
            total_s=now - received,
            bytes_in=origin.bytes_in,
            bytes_out=origin.bytes_out,
            transport=origin.transport,
            request_id=origin.request_id,
            trace=origin.trace,
        )
        emit(self._sink, event)

    def refused(self, origin: Origin, error: RequestError) -> None:
        """A request got an error, or its client left."""
        if self._sink is not None:
            emit(self._sink, refusal_event(self._model, origin, error))

    def ran(self, batch: Batch, instance: int, *, failed: bool) -> None:
        """A batch came back from its engine."""
        if self._sink is None:
            return
        event = Ran(
            model=self._model,
            variant=batch.variant,
            requests=batch.requests,
            rows=batch.rows,
            seconds=batch.finished - batch.started,
            closed=batch.closed,
            instance=instance,
            failed=failed,
        )
        emit(self._sink, event)

    def happened(self, event: Happening) -> None:
        """Tell of an engine instance that comes or goes; anything else is no news."""
        if self._sink is None or not isinstance(event, EngineUp | EngineDown | EngineLost):
            return
        state = _STATES[type(event)]
        again = state == "started" and event.instance in self._started
        self._started.add(event.instance)
        news = WorkerChanged(
            model=self._model,
            variant=self._variant,
            instance=event.instance,
            state="restarted" if again else state,
        )
        emit(self._sink, news)

    def cached(self, what: Literal["hit", "miss", "kept"], evicted: int = 0) -> None:
        """Tell what became of a request, or of an answer, at the cache."""
        if self._sink is not None:
            emit(self._sink, Cached(model=self._model, what=what, evicted=evicted))

    def moved(self, before: int, after: int, variants: Sequence[str]) -> None:
        """Tell that the model is served from another level of its ladder on."""
        if self._sink is None:
            return
        variant = variants[min(after, len(variants) - 1)]
        emit(self._sink, LevelChanged(model=self._model, variant=variant, before=before, after=after))


def refusal_event(model: str, origin: Origin, error: RequestError) -> Refused:
    """The event of a request that got `error` at this moment."""
    return Refused(
        model=model,
        code=error.code,
        lane=origin.lane,
        message=error.message,
        total_s=time.monotonic() - origin.received if origin.received else 0.0,
        bytes_in=origin.bytes_in,
        transport=origin.transport,
        request_id=origin.request_id,
        trace=origin.trace,
    )


def emit(sink: Sink, event: Event) -> None:
    """Tell `sink`. Whatever becomes of it, the server serves on."""
    try:
        sink(event)
    except Exception as error:
        context = {"message": "An observer failed.", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)
