from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from hasten.errors import UsageError
from hasten.observe.base import exporters, tee
from hasten.observe.session import observing
from hasten.registry import Entry
from hasten.spec.event import Event, Served, WorkerChanged

SERVED = Served(model="tiny", variant="v", batch=1, queue_s=0.0, engine_s=0.0)
DIED = WorkerChanged(model="tiny", variant="v", instance=0, state="died")


def test_an_observer_that_fails_keeps_the_others_from_nothing() -> None:
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        tee([heard.append, broken, heard.append])(SERVED)
    assert heard == [SERVED, SERVED]


def test_an_observer_is_spared_what_it_is_deaf_to() -> None:
    class Deaf(list[Event]):
        deaf = frozenset({Served})

        def __call__(self, event: Event) -> None:
            self.append(event)

    deaf, heard = Deaf(), list[Event]()
    tell = tee([deaf, heard.append])
    for event in (SERVED, DIED, SERVED):
        tell(event)
    assert (deaf, heard) == ([DIED], [SERVED, DIED, SERVED])


def test_metrics_and_log_hear_the_same_events_and_the_log_ends_with_the_block(tmp_path: Path) -> None:
    with observing(str(tmp_path / "log"), log_requests=True) as observation:
        observation.sink(SERVED)
        observation.sink(DIED)
        _, page = observation.metrics.page("", ())
    assert b"hasten_worker_deaths_total" in page
    events = [json.loads(line)["event"] for line in (tmp_path / "log").read_text().splitlines()]
    assert events == ["answered", "worker died"]


class Stranger:
    """An exporter of another package, and the sink that it opens."""

    name = "stranger"
    heard: list[Event] = []
    closed = False

    def open(self) -> Stranger:
        return self

    def __call__(self, event: Event) -> None:
        self.heard.append(event)

    def lost(self) -> dict[str, int]:
        return {"shy": 7}

    def close(self) -> None:
        Stranger.closed = True


def test_an_exporter_of_another_package_is_switched_on_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    entries: dict[str, Any] = {"stranger": Entry(name="stranger", target=f"{__name__}:Stranger", third_party=True)}
    monkeypatch.setattr(exporters, "_entries", entries)
    monkeypatch.setattr(exporters, "_made", {"stranger": Stranger()})
    with observing(names=["stranger"]) as observation:
        observation.sink(SERVED)
        page = observation.metrics.page("", ())[1].decode()
    assert Stranger.heard == [SERVED]
    assert Stranger.closed
    assert 'hasten_observations_lost_total{observer="stranger",reason="shy"} 7.0' in page


def test_an_unknown_exporter_is_refused_with_the_names_that_there_are() -> None:
    before = list(logging.getLogger().handlers)
    with pytest.raises(UsageError, match="otel"), observing(names=["nobody"]):
        pass
    assert logging.getLogger().handlers == before


def test_otel_is_opened_and_closed_where_no_collector_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="the extra otel")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    with observing(names=["otel"]) as observation:
        observation.sink(DIED)
