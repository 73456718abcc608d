from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.errors import RequestError, UsageError
from hasten.observe.prometheus import Metrics
from hasten.observe.rates import Rates, rates
from hasten.observe.scrape import Scrape, Scraper, read
from hasten.spec.event import UNKNOWN_MODEL, Gauges, Lane, Ran, Refused, Served, WorkerChanged


def served(total_s: float, **fields: Any) -> Served:
    return Served(
        **{"model": "tiny", "variant": "v", "batch": 1, "queue_s": 0.0, "engine_s": 0.0, **fields}, total_s=total_s
    )


class World:
    """A server's metrics, and the scrapes that were taken of them."""

    def __init__(self) -> None:
        self.metrics = Metrics()

    def tell(self, *events: Any) -> None:
        for event in events:
            self.metrics(event)

    def scrape(self, *gauges: Gauges) -> Scrape:
        return read(self.metrics.page("", gauges or [Gauges(model="tiny", variant="v")])[1])


def one(rows: list[Rates]) -> Rates:
    [row] = rows
    return row


def test_only_what_happened_between_the_scrapes_counts() -> None:
    world = World()
    world.tell(*[served(30.0)] * 50)
    before = world.scrape()
    world.tell(*[served(0.002)] * 98, served(0.2), served(2.0))
    row = one(rates(before, world.scrape(), 4.0))
    assert row.rps == 25.0
    assert row.latency_p50_ms is not None and 1.6 <= row.latency_p50_ms <= 2.5
    assert row.latency_p99_ms is not None and 160 <= row.latency_p99_ms <= 250


def test_variants_and_lanes_of_a_model_add_up() -> None:
    world = World()
    before = world.scrape()
    world.tell(served(0.1, lane="a"), served(0.1, lane="b"), served(0.1, variant="w"))
    assert one(rates(before, world.scrape(), 1.0)).rps == 3.0


def test_batches_busyness_refusals_queue_and_workers_are_told() -> None:
    world = World()
    before = world.scrape()
    world.tell(*(Ran(model="tiny", variant="v", requests=n, rows=n, seconds=0.5) for n in (2, 4)))
    world.tell(Refused(model="tiny", code="overloaded"), Refused(model="tiny", code="overloaded"))
    world.tell(WorkerChanged(model="tiny", variant="v", instance=0, state="restarted"))
    gauges = Gauges(
        model="tiny", variant="v", instances=2, instances_up=1, ready=True, lanes=(Lane(requests=7, work_s=1.5),)
    )
    row = one(rates(before, world.scrape(gauges), 2.0))
    assert (row.batch, row.busy, row.queue, row.queue_work_s) == (3.0, 0.5, 7, 1.5)
    assert (row.refusals, row.refusals_per_s) == ({"overloaded": 1.0}, 1.0)
    assert (row.restarts, row.workers, row.workers_up, row.ready) == (1, 2, 1, True)


def test_where_nothing_happened_there_is_no_latency() -> None:
    world = World()
    world.tell(served(1.0))
    row = one(rates(world.scrape(), world.scrape(), 1.0))
    assert (row.rps, row.latency_p50_ms, row.batch) == (0.0, None, None)


def test_a_server_that_started_anew_is_seen_from_its_start() -> None:
    old, new = World(), World()
    old.tell(*[served(1.0)] * 10)
    new.tell(*[served(0.001)] * 3)
    row = one(rates(old.scrape(), new.scrape(), 1.0))
    assert row.rps == 3.0
    assert row.latency_p99_ms is not None and row.latency_p99_ms <= 1.6


def test_refusals_of_unknown_models_have_a_row_after_those_that_are_served() -> None:
    world = World()
    before = world.scrape()
    world.tell(Refused(model=UNKNOWN_MODEL, code="not_found"))
    rows = rates(before, world.scrape(Gauges(model="z", variant="v"), Gauges(model="a", variant="v")), 1.0)
    assert [(row.model, row.ready) for row in rows] == [("a", True), ("z", True), (UNKNOWN_MODEL, None)]


@settings(max_examples=20)
@given(st.lists(st.floats(1e-5, 60)), st.lists(st.floats(1e-5, 60), min_size=1))
def test_percentiles_never_cross_and_every_answer_counts(earlier: list[float], later: list[float]) -> None:
    world = World()
    world.tell(*map(served, earlier))
    before = world.scrape()
    world.tell(*map(served, later))
    row = one(rates(before, world.scrape(), 1.0))
    assert row.rps == len(later)
    assert row.latency_p50_ms is not None and row.latency_p95_ms is not None and row.latency_p99_ms is not None
    assert row.latency_p50_ms <= row.latency_p95_ms <= row.latency_p99_ms


@pytest.mark.parametrize("body", [b"<html>", b"{", b"\xff", b"", b"other_total 3\n", b"hasten_build_info{", b"a{b=\n"])
def test_what_is_no_page_of_ours_is_refused_with_words(body: bytes) -> None:
    with pytest.raises(RequestError, match="metrics"):
        read(body)


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:port", "http://x:99999"])
def test_what_is_no_address_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(UsageError, match=r"http://127\.0\.0\.1:8000|port"):
        Scraper(url)


def test_where_nobody_listens_the_error_says_so() -> None:
    with pytest.raises(RequestError) as caught:
        Scraper("http://127.0.0.1:1", timeout_s=5).scrape()
    assert caught.value.code == "connection"
