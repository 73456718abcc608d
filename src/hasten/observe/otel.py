"""Traces for OpenTelemetry: a span for each request, with one for each of its stages.

Spans are made on a thread, because the library takes many times what an event may cost; it sends them in batches over
OTLP/HTTP. Where to, how they are sampled and what the service is called say the variables of OpenTelemetry's own
specification: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME. A client's traceparent (W3C Trace
Context) makes its span the parent of ours.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from hasten.spec.event import Event, Refused, Served

__all__ = ["OpenTelemetry", "Traces"]

# Errors of ours; the others are the client's, or shed load.
_FAULTS = ("internal", "unavailable")


class OpenTelemetry:
    """The exporter."""

    name = "otel"

    def open(self) -> Traces:
        """Return a sink that sends spans where the environment says."""
        return Traces(OTLPSpanExporter())


class Traces:
    """A sink that makes spans of requests and hands them to `exporter`. At most `capacity` events wait."""

    def __init__(
        self, exporter: SpanExporter, *, capacity: int = 2048, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        # Resource.create reads OTEL_SERVICE_NAME, over which an attribute given here would stand.
        named = "OTEL_SERVICE_NAME" in os.environ
        self._provider = TracerProvider(
            resource=Resource.create({} if named else {SERVICE_NAME: "hasten"}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("hasten")
        self._clock_ns = clock_ns
        self._capacity = capacity
        self._slow = 0
        self._events: queue.SimpleQueue[tuple[int, Served | Refused] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="hasten-traces", daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Take one event; those that are no request's are let pass."""
        if not isinstance(event, Served | Refused):
            return
        if self._events.qsize() >= self._capacity:
            self._slow += 1
        else:
            self._events.put((self._clock_ns(), event))

    def lost(self) -> dict[str, int]:
        """Requests without a span, because too many waited."""
        return {"slow": self._slow}

    def close(self) -> None:
        """Send what waits, for some seconds at most."""
        self._events.put(None)
        self._thread.join(2.0)
        self._provider.force_flush(2000)
        self._provider.shutdown()

    def _run(self) -> None:
        while (item := self._events.get()) is not None:
            self._span(*item)

    def _span(self, end: int, event: Served | Refused) -> None:
        """The event was told at `end`, nanoseconds since 1970, when its request was over."""
        start = end - _ns(event.total_s)
        # The propagator takes what is a traceparent and no more.
        parent = TraceContextTextMapPropagator().extract({"traceparent": event.trace}) if event.trace else None
        span = self._tracer.start_span(
            f"infer {event.model}" if isinstance(event, Served) else f"refuse {event.model}",
            context=parent,
            kind=SpanKind.SERVER,
            start_time=start,
            attributes={
                "hasten.model": event.model,
                "hasten.lane": event.lane,
                "hasten.request_id": event.request_id,
                "network.protocol.name": event.transport,
            },
        )
        if isinstance(event, Served):
            span.set_attributes(
                {
                    "hasten.variant": event.variant,
                    "hasten.rows": event.rows,
                    "hasten.batch.requests": event.batch,
                    "hasten.batch.closed": event.closed,
                }
            )
            if span.is_recording():
                self._stages(trace.set_span_in_context(span), start, end, event)
        else:
            span.set_attribute("error.type", event.code)
            if event.code in _FAULTS:
                span.set_status(Status(StatusCode.ERROR, event.code))
        span.end(end)

    def _stages(self, parent: Context, start: int, end: int, event: Served) -> None:
        at = start
        for name, seconds in (
            ("decode", event.decode_s),
            ("queue", event.queue_s),
            ("batch", event.batch_s),
            ("engine", event.engine_s),
        ):
            self._tracer.start_span(name, context=parent, start_time=at).end(at + _ns(seconds))
            at += _ns(seconds)
        encode = _ns(event.wire_s - event.decode_s)
        self._tracer.start_span("encode", context=parent, start_time=end - encode).end(end)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
