from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from hasten.observe.families import FAMILIES
from hasten.observe.prometheus import Metrics
from hasten.spec.event import (
    NO_MODEL,
    UNKNOWN_MODEL,
    Cached,
    Changed,
    Event,
    Gauges,
    Lane,
    Ran,
    Refused,
    Served,
    WorkerChanged,
)

OPEN = "application/openmetrics-text; version=1.0.0"
TINY = {"model": "tiny", "version": "1", "variant": "reference"}


def served(**fields: Any) -> Served:
    return Served(**{"model": "tiny", "variant": "reference", "batch": 1, "queue_s": 0.0, "engine_s": 0.001, **fields})


def ran(**fields: Any) -> Ran:
    return Ran(
        **{
            "model": "tiny",
            "variant": "reference",
            "requests": 1,
            "rows": 1,
            "seconds": 0.1,
            "closed": "full",
            **fields,
        }
    )


class FullDisk:
    """An observer that has lost three records."""

    def __call__(self, event: Event) -> None:
        pass

    def lost(self) -> dict[str, int]:
        return {"error": 3}

    def close(self) -> None:
        pass


class Page:
    """What a scraper reads: values by name and labels."""

    def __init__(self, events: Iterable[Event] = (), gauges: Iterable[Gauges] = (), accept: str = "") -> None:
        metrics = Metrics({"log": FullDisk()})
        for event in events:
            metrics(event)
        self.kind, body = metrics.page(accept, list(gauges))
        read = read_openmetrics if "openmetrics" in self.kind else read_text
        self.families = {family.name: family for family in read(body.decode())}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        [found] = [s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items()]
        return found


def test_an_answer_is_counted_in_each_stage_and_in_all() -> None:
    page = Page([served(wire_s=0.001, queue_s=0.02, batch_s=0.3, engine_s=4.0, total_s=5.0, lane="low")])
    assert page.value("hasten_request_duration_seconds_sum", **TINY, lane="low") == 5.0
    stages = {"wire": 0.001, "queue": 0.02, "batch": 0.3, "engine": 4.0}
    for stage, seconds in stages.items():
        assert page.value("hasten_request_stage_duration_seconds_sum", stage=stage) == seconds
        assert page.value("hasten_request_stage_duration_seconds_count", stage=stage) == 1


def test_rows_and_bytes_add_up() -> None:
    page = Page([served(rows=2, bytes_in=10, bytes_out=3), served(rows=3, bytes_in=5, bytes_out=4)])
    assert page.value("hasten_request_rows_total", **TINY) == 5
    assert page.value("hasten_request_bytes_total", **TINY) == 15
    assert page.value("hasten_response_bytes_total", **TINY) == 7


def test_batches_are_counted_by_size_and_by_what_closed_them() -> None:
    page = Page([ran(requests=4, rows=8), ran(closed="delay", failed=True), ran(closed="delay")])
    assert page.value("hasten_batches_total", **TINY, closed="delay") == 2
    assert page.value("hasten_batches_total", **TINY, closed="full") == 1
    assert page.value("hasten_batch_failures_total", **TINY) == 1
    assert page.value("hasten_batch_requests_bucket", le="2.0") == 2
    assert page.value("hasten_batch_rows_sum", **TINY) == 10
    assert page.value("hasten_engine_busy_seconds_total", **TINY) == pytest.approx(0.3)


def test_refusals_workers_and_changes_are_counted() -> None:
    page = Page(
        [
            Refused(model="tiny", code="overloaded"),
            Refused(model="tiny", code="overloaded"),
            WorkerChanged(model="tiny", variant="v", instance=0, state="started"),
            WorkerChanged(model="tiny", variant="v", instance=0, state="died"),
            WorkerChanged(model="tiny", variant="v", instance=0, state="restarted"),
            Changed(model="tiny", what="load", status=503),
        ]
    )
    assert page.value("hasten_refusals_total", model="tiny", reason="overloaded") == 2
    for state in ("starts", "deaths", "restarts"):
        assert page.value(f"hasten_worker_{state}_total", model="tiny") == 1
    assert page.value("hasten_model_changes_total", change="load", result="refused") == 1


def test_the_cache_is_counted() -> None:
    page = Page(
        [
            *(Cached(model="tiny", what=what) for what in ("miss", "hit", "hit")),
            Cached(model="tiny", what="kept", evicted=2),
        ],
        gauges=[Gauges(model="tiny", variant="reference", cache_bytes=70)],
    )
    assert page.value("hasten_cache_lookups_total", result="hit") == 2
    assert page.value("hasten_cache_lookups_total", result="miss") == 1
    assert page.value("hasten_cache_evictions_total", model="tiny") == 2
    assert page.value("hasten_cache_bytes", **TINY) == 70


def test_gauges_are_those_of_the_scrape() -> None:
    page = Page(
        gauges=[
            Gauges(
                model="tiny",
                variant="reference",
                ready=False,
                instances=2,
                instances_up=1,
                capacity=9,
                lanes=(Lane(requests=3, work_s=0.5), Lane(lane="low")),
            )
        ]
    )
    assert page.value("hasten_queue_requests", **TINY, lane="default") == 3
    assert page.value("hasten_queue_work_seconds", **TINY, lane="default") == 0.5
    assert page.value("hasten_queue_requests", **TINY, lane="low") == 0
    assert page.value("hasten_queue_capacity_requests", **TINY) == 9
    assert page.value("hasten_workers", **TINY) == 2
    assert page.value("hasten_workers_up", **TINY) == 1
    assert page.value("hasten_model_ready", **TINY) == 0
    assert page.value("hasten_observations_lost_total", observer="log", reason="error") == 3


def test_the_scraper_chooses_the_format() -> None:
    everything = [served(), ran(), Refused(model="tiny", code="invalid")]
    assert Page(everything).kind.startswith("text/plain")
    page = Page(everything, accept=OPEN)
    assert page.kind.startswith("application/openmetrics-text")
    assert page.value("hasten_request_duration_seconds_count", **TINY) == 1


def test_two_servers_keep_their_counts_apart() -> None:
    assert Page([served()]).value("hasten_request_rows_total", **TINY) == 1
    assert not [sample for sample in Page().samples if sample.name == "hasten_request_rows_total"]


events = st.one_of(
    st.builds(
        served,
        model=st.sampled_from(["a", "b"]),
        lane=st.sampled_from(["default", "low"]),
        total_s=st.floats(0, 100),
    ),
    st.builds(ran, requests=st.integers(1, 64), closed=st.sampled_from(["full", "delay"])),
    st.builds(Refused, model=st.sampled_from(["a", UNKNOWN_MODEL]), code=st.sampled_from(["invalid", "deadline"])),
)


@settings(max_examples=40)
@given(st.lists(events))
def test_every_event_is_counted_exactly_once(told: list[Event]) -> None:
    page = Page(told)

    def total(name: str) -> float:
        return sum(sample.value for sample in page.samples if sample.name == name)

    assert total("hasten_request_duration_seconds_count") == sum(isinstance(event, Served) for event in told)
    assert total("hasten_batches_total") == total("hasten_batch_requests_count")
    assert total("hasten_batches_total") == sum(isinstance(event, Ran) for event in told)
    assert total("hasten_refusals_total") == sum(isinstance(event, Refused) for event in told)
    in_batches = sum(event.requests for event in told if isinstance(event, Ran))
    assert total("hasten_batch_requests_sum") == in_batches


def test_names_without_end_make_no_page_without_end() -> None:
    page = Page(Refused(model=f"model-{number}", code="invalid") for number in range(10_000))
    rows = [sample for sample in page.samples if sample.name == "hasten_refusals_total"]
    assert len(rows) == 1001
    assert page.value("hasten_refusals_total", model=UNKNOWN_MODEL) == 9000


def test_markup_in_a_label_stays_text() -> None:
    name = '<img src=x onerror="alert(1)">\nhasten_build_info 7\\'
    page = Page([served(model=name), Refused(model=NO_MODEL, code="invalid")])
    assert page.value("hasten_request_rows_total", model=name) == 1


def test_every_family_that_is_listed_is_shown_with_its_labels_and_kind() -> None:
    gauges = [Gauges(model="tiny", variant="reference", lanes=(Lane(),))]
    everything: list[Event] = [
        served(),
        ran(),
        Refused(model="tiny", code="invalid"),
        Changed(model="tiny", what="load", status=200),
        Cached(model="tiny", what="miss"),
        Cached(model="tiny", what="kept", evicted=1),
    ]
    everything += [
        WorkerChanged(model="tiny", variant="v", instance=0, state=state) for state in ("started", "died", "restarted")
    ]
    page = Page(everything, gauges, OPEN)
    shown = {name: family for name, family in page.families.items() if name.startswith("hasten_")}
    assert set(shown) == set(FAMILIES)
    for name, family in FAMILIES.items():
        assert shown[name].type == family.kind
        assert shown[name].documentation == family.help
        for sample in shown[name].samples:
            own = set(sample.labels) - {"le"} - ({"version", "python", "compiled"} if family.kind == "info" else set())
            assert own == set(family.labels), name


def test_answers_that_nobody_reads_are_shown() -> None:
    _, body = Metrics().page("", (), 12_345)
    [family] = [family for family in read_text(body.decode()) if family.name == "hasten_unread_bytes"]
    assert [sample.value for sample in family.samples] == [12_345]
