"""Events to metrics, and the page that Prometheus scrapes.

Counting happens on the server's event loop in arrays of our own, because an observation by the library costs several
times as much; the library writes the page from them, in the form that the scraper asks for, with a private registry.
"""

from __future__ import annotations

import importlib.metadata
import platform
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder

from hasten.observe.base import Sink
from hasten.observe.families import FAMILIES
from hasten.observe.histogram import COUNTS, SECONDS, Histogram
from hasten.spec.compiled import is_compiled
from hasten.spec.event import (
    UNKNOWN_MODEL,
    Cached,
    Changed,
    Event,
    Gauges,
    LevelChanged,
    Ran,
    Refused,
    Served,
    WorkerChanged,
)

__all__ = ["Metrics"]

# No server has that many; whatever errs in naming them must not grow the page without end.
_MODELS = 1000
_STATES = {"started": "hasten_worker_starts", "died": "hasten_worker_deaths", "restarted": "hasten_worker_restarts"}
_STAGES = ("wire", "queue", "batch", "engine")


class _Requests:
    """Answered requests of one model, version, variant and lane."""

    __slots__ = ("batch", "bytes_in", "bytes_out", "counts", "engine", "queue", "rows", "total", "wire")

    def __init__(self) -> None:
        self.total, self.wire, self.queue = Histogram(SECONDS), Histogram(SECONDS), Histogram(SECONDS)
        self.batch, self.engine = Histogram(SECONDS), Histogram(SECONDS)
        self.counts = tuple(one.counts for one in (self.total, self.wire, self.queue, self.batch, self.engine))
        self.rows = self.bytes_in = self.bytes_out = 0


class _Batches:
    """Batches of one model, version and variant."""

    __slots__ = ("closed", "failed", "requests", "rows", "seconds")

    def __init__(self) -> None:
        self.requests, self.rows = Histogram(COUNTS), Histogram(COUNTS)
        self.closed: Counter[str] = Counter()
        self.seconds = 0.0
        self.failed = 0


class Metrics:
    """A sink that counts, and the page of what it counted. `others` are further observers by name, whose losses it
    shows.
    """

    def __init__(self, others: Mapping[str, Sink] | None = None) -> None:
        self._lost = {name: sink.lost for name, sink in (others or {}).items()}
        self._requests: dict[tuple[str, ...], _Requests] = {}
        self._batches: dict[tuple[str, ...], _Batches] = {}
        self._refusals: Counter[tuple[str, ...]] = Counter()
        self._workers: Counter[tuple[str, str, str]] = Counter()
        self._levels: Counter[tuple[str, ...]] = Counter()
        self._lookups: Counter[tuple[str, ...]] = Counter()
        self._evictions: Counter[tuple[str, ...]] = Counter()
        self._changes: Counter[tuple[str, ...]] = Counter()
        self._models: set[str] = set()
        self._gauges: Sequence[Gauges] = ()
        self._unread = 0
        self._hear: dict[type[Event], Callable[[Any], None]] = {
            Served: self._served,
            Refused: self._refused,
            Ran: self._ran,
            WorkerChanged: self._worker,
            LevelChanged: self._moved,
            Cached: self._cached,
            Changed: self._changed,
        }
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Source(self.collect))

    def __call__(self, event: Event) -> None:
        """Count an event."""
        self._hear[type(event)](event)

    def lost(self) -> dict[str, int]:
        """Nothing ever is."""
        return {}

    def close(self) -> None:
        """Nothing is left to write."""

    def page(self, accept: str, gauges: Sequence[Gauges], unread_bytes: int = 0) -> tuple[str, bytes]:
        """Return content type and body for a scraper that accepts `accept`. May run on another thread, once at a
        time.
        """
        self._gauges, self._unread = gauges, unread_bytes
        encode, kind = choose_encoder(accept)
        return kind, encode(self._registry)

    def collect(self) -> Iterator[Metric]:
        """All families as they stand, those of the process aside."""
        yield from self._of_requests()
        yield from self._of_batches()
        yield _counter("hasten_refusals", self._refusals)
        workers = list(self._workers.items())
        for state, name in _STATES.items():
            rows: dict[tuple[str, ...], float] = {who[:2]: count for who, count in workers if who[2] == state}
            yield _counter(name, rows)
        yield _counter("hasten_level_changes", self._levels)
        yield _counter("hasten_cache_lookups", self._lookups)
        yield _counter("hasten_cache_evictions", self._evictions)
        yield _counter("hasten_model_changes", self._changes)
        yield from self._of_gauges()
        lost: dict[tuple[str, ...], float] = {
            (name, reason): n for name, ask in self._lost.items() for reason, n in ask().items()
        }
        yield _counter("hasten_observations_lost", lost)
        about = {
            "version": importlib.metadata.version("hasten"),
            "python": platform.python_version(),
            "compiled": "yes" if is_compiled() else "no",
        }
        yield InfoMetricFamily("hasten_build", FAMILIES["hasten_build"].help, value=about)

    def _served(self, event: Served) -> None:
        row = self._requests.get((event.model, event.version, event.variant, event.lane))
        if row is None:
            who = (self._known(event.model), event.version, event.variant, event.lane)
            row = self._requests.setdefault(who, _Requests())
        # As `Histogram.add`: five calls a request would cost more than the counting.
        total, wire, queue, batch, engine = row.counts
        row.total.total += (seconds := event.total_s)
        total[bisect_left(SECONDS, seconds)] += 1
        row.wire.total += (seconds := event.wire_s)
        wire[bisect_left(SECONDS, seconds)] += 1
        row.queue.total += (seconds := event.queue_s)
        queue[bisect_left(SECONDS, seconds)] += 1
        row.batch.total += (seconds := event.batch_s)
        batch[bisect_left(SECONDS, seconds)] += 1
        row.engine.total += (seconds := event.engine_s)
        engine[bisect_left(SECONDS, seconds)] += 1
        row.rows += event.rows
        row.bytes_in += event.bytes_in
        row.bytes_out += event.bytes_out

    def _refused(self, event: Refused) -> None:
        self._refusals[self._known(event.model), event.lane, event.code] += 1

    def _ran(self, event: Ran) -> None:
        row = self._batches.get((event.model, event.version, event.variant))
        if row is None:
            row = self._batches.setdefault((self._known(event.model), event.version, event.variant), _Batches())
        row.requests.add(event.requests)
        row.rows.add(event.rows)
        row.closed[event.closed] += 1
        row.seconds += event.seconds
        row.failed += event.failed

    def _worker(self, event: WorkerChanged) -> None:
        self._workers[self._known(event.model), event.variant, event.state] += 1

    def _moved(self, event: LevelChanged) -> None:
        self._levels[self._known(event.model), "down" if event.after > event.before else "up"] += 1

    def _cached(self, event: Cached) -> None:
        model = self._known(event.model)
        if event.what == "kept":
            self._evictions[(model,)] += event.evicted
        else:
            self._lookups[model, event.what] += 1

    def _changed(self, event: Changed) -> None:
        result = "done" if event.status < 400 else "refused"
        self._changes[self._known(event.model), event.what, result] += 1

    def _known(self, model: str) -> str:
        if model in self._models:
            return model
        if len(self._models) >= _MODELS:
            return UNKNOWN_MODEL
        self._models.add(model)
        return model

    def _of_requests(self) -> Iterator[Metric]:
        rows = list(self._requests.items())
        total = _histogram("hasten_request_duration_seconds")
        stages = _histogram("hasten_request_stage_duration_seconds")
        for who, row in rows:
            _put(total, who, row.total)
            for stage in _STAGES:
                _put(stages, (*who, stage), getattr(row, stage))
        yield total
        yield stages
        yield _counter("hasten_request_rows", {who: row.rows for who, row in rows})
        yield _counter("hasten_request_bytes", {who: row.bytes_in for who, row in rows})
        yield _counter("hasten_response_bytes", {who: row.bytes_out for who, row in rows})

    def _of_batches(self) -> Iterator[Metric]:
        rows = list(self._batches.items())
        requests, samples = _histogram("hasten_batch_requests"), _histogram("hasten_batch_rows")
        for who, row in rows:
            _put(requests, who, row.requests)
            _put(samples, who, row.rows)
        yield requests
        yield samples
        closed = {(*who, why): count for who, row in rows for why, count in list(row.closed.items())}
        yield _counter("hasten_batches", closed)
        yield _counter("hasten_batch_failures", {who: row.failed for who, row in rows})
        yield _counter("hasten_engine_busy_seconds", {who: row.seconds for who, row in rows})

    def _of_gauges(self) -> Iterator[Metric]:
        models = {(one.model, one.version, one.variant): one for one in self._gauges}
        lanes = {(*who, lane.lane): lane for who, one in models.items() for lane in one.lanes}
        yield _gauge("hasten_queue_requests", {who: lane.requests for who, lane in lanes.items()})
        yield _gauge("hasten_queue_work_seconds", {who: lane.work_s for who, lane in lanes.items()})
        yield _gauge("hasten_queue_capacity_requests", {who: one.capacity for who, one in models.items()})
        yield _gauge("hasten_workers", {who: one.instances for who, one in models.items()})
        yield _gauge("hasten_workers_up", {who: one.instances_up for who, one in models.items()})
        yield _gauge("hasten_model_level", {who: one.level for who, one in models.items()})
        yield _gauge("hasten_cache_bytes", {who: one.cache_bytes for who, one in models.items()})
        yield _gauge("hasten_model_ready", {who: one.ready for who, one in models.items()})
        yield _gauge("hasten_unread_bytes", {(): self._unread})


class _Source:
    """What the registry asks at each scrape."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self.collect = collect

    def describe(self) -> list[Metric]:
        """Nothing: the registry is private, and no name in it is taken twice."""
        return []


def _unit(name: str) -> str:
    last = name.rpartition("_")[2]
    return last if last in ("seconds", "bytes", "requests", "rows") else ""


def _histogram(name: str) -> HistogramMetricFamily:
    family = FAMILIES[name]
    return HistogramMetricFamily(name, family.help, labels=family.labels, unit=_unit(name))


def _put(family: HistogramMetricFamily, who: tuple[str, ...], histogram: Histogram) -> None:
    family.add_metric(who, histogram.cumulative(), histogram.total)


def _counter(name: str, rows: Mapping[tuple[str, ...], float]) -> Metric:
    family = CounterMetricFamily(name, FAMILIES[name].help, labels=FAMILIES[name].labels, unit=_unit(name))
    for who, value in list(rows.items()):
        family.add_metric(who, value)
    return family


def _gauge(name: str, rows: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(name, FAMILIES[name].help, labels=FAMILIES[name].labels, unit=_unit(name))
    for who, value in rows.items():
        family.add_metric(who, value)
    return family
