from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra otel")

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from hasten.observe.base import exporters
from hasten.observe.otel import OpenTelemetry, Traces
from hasten.spec.event import Event, Ran, Refused, Served, WorkerChanged

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
END = 10**18


def served(**fields: Any) -> Served:
    return Served(
        **{
            "model": "tiny",
            "variant": "reference",
            "batch": 4,
            "decode_s": 0.001,
            "wire_s": 0.003,
            "queue_s": 0.01,
            "batch_s": 0.02,
            "engine_s": 0.04,
            "total_s": 0.08,
            "request_id": "abc",
            **fields,
        }
    )


def spans(*events: Event) -> list[ReadableSpan]:
    exporter = InMemorySpanExporter()
    traces = Traces(exporter, clock_ns=lambda: END)
    for event in events:
        traces(event)
    traces.close()
    return list(exporter.get_finished_spans())


def times(found: Iterable[ReadableSpan]) -> dict[str, tuple[float, float]]:
    """Begin and end by name, in milliseconds before the end of the request."""
    return {s.name: (((s.start_time or 0) - END) / 1e6, ((s.end_time or 0) - END) / 1e6) for s in found}


def test_a_request_is_a_span_and_its_stages_follow_each_other_inside() -> None:
    found = spans(served())
    assert times(found) == {
        "decode": (-80, -79),
        "queue": (-79, -69),
        "batch": (-69, -49),
        "engine": (-49, -9),
        "encode": (-2, 0),
        "infer tiny": (-80, 0),
    }
    whole = next(span for span in found if span.name == "infer tiny")
    assert {span.parent.span_id for span in found if span.parent} == {whole.context.span_id}
    assert whole.attributes is not None
    assert (whole.attributes["hasten.request_id"], whole.attributes["hasten.batch.requests"]) == ("abc", 4)


def test_the_clients_traceparent_becomes_the_parent() -> None:
    found = spans(served(trace=f"00-{TRACE}-{PARENT}-01"))
    whole = next(span for span in found if span.name == "infer tiny")
    assert whole.parent is not None
    assert (f"{whole.context.trace_id:032x}", f"{whole.parent.span_id:016x}") == (TRACE, PARENT)


def test_a_client_that_does_not_sample_gets_no_spans() -> None:
    assert spans(served(trace=f"00-{TRACE}-{PARENT}-00")) == []


@pytest.mark.parametrize("nonsense", ["x", "00-zz-1-01", f"00-{'0' * 32}-{PARENT}-01", "\r\n", "00-" * 10_000])
def test_what_is_no_traceparent_begins_a_trace_of_its_own(nonsense: str) -> None:
    whole = next(span for span in spans(served(trace=nonsense)) if span.name == "infer tiny")
    assert whole.parent is None


@pytest.mark.parametrize(("code", "fault"), [("internal", True), ("overloaded", False), ("invalid", False)])
def test_only_our_own_faults_are_errors(code: str, fault: bool) -> None:
    [span] = spans(Refused(model="tiny", code=code, total_s=0.5))
    assert span.attributes is not None
    assert span.attributes["error.type"] == code
    assert (span.status.status_code.name == "ERROR") == fault


def test_what_is_no_requests_makes_no_span() -> None:
    assert not spans(
        Ran(model="tiny", variant="v", requests=1, rows=1, seconds=1.0),
        WorkerChanged(model="tiny", variant="v", instance=0, state="died"),
    )


class Broken(SpanExporter):
    """A collector that is down."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise OSError("connection refused")


def test_a_collector_that_is_down_costs_nothing_but_spans(caplog: pytest.LogCaptureFixture) -> None:
    traces = Traces(Broken())
    traces(served())
    traces.close()
    assert "connection refused" in caplog.text


def test_what_the_thread_cannot_follow_is_lost_and_counted() -> None:
    gate = itertools.count()
    traces = Traces(InMemorySpanExporter(), capacity=0, clock_ns=lambda: next(gate))
    for _ in range(3):
        traces(served())
    traces.close()
    assert traces.lost() == {"slow": 3}
    assert next(gate) == 0, "nothing was done for them"


def test_it_is_found_by_its_name() -> None:
    assert isinstance(exporters.get("otel"), OpenTelemetry)
