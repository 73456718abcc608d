"""What an event costs a server: put together by the driver, counted by the metrics; and what a scrape costs.

Prediction, written before the first run: 0.6 µs to put a `Served` together, 1.6 µs to count it, 12 µs if the library's
own histograms counted it; a scrape of ten models 30 ms. What came out stands in docs/observability.md.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram

from hasten.observe.histogram import SECONDS
from hasten.observe.prometheus import Metrics
from hasten.spec.event import Gauges, Lane, Ran, Served

EVENTS, ROUNDS = 20_000, 15
STAGES = ("wire", "queue", "batch", "engine")


def served(number: int) -> Served:
    seconds = 1e-5 * (1 + number % 997)
    return Served(
        model=f"model-{number % 10}", variant="reference", batch=4, queue_s=seconds, engine_s=seconds, rows=1,
        closed="full", wire_s=seconds, batch_s=seconds, total_s=4 * seconds, bytes_in=600, bytes_out=200,
        transport="http", request_id="0123456789ab-1f", trace="",
    )  # fmt: skip


def by_the_library() -> Callable[[Served], None]:
    """The same, as the library is usually used: labels looked up at each observation."""
    registry = CollectorRegistry()
    who = ["model", "version", "variant", "lane"]
    total = Histogram("total_seconds", "", who, buckets=SECONDS, registry=registry)
    stages = Histogram("stage_seconds", "", [*who, "stage"], buckets=SECONDS, registry=registry)
    counters = [Counter(name, "", who, registry=registry) for name in ("rows", "bytes_in", "bytes_out")]

    def count(event: Served) -> None:
        labels = (event.model, event.version, event.variant, event.lane)
        total.labels(*labels).observe(event.total_s)
        for stage in STAGES:
            stages.labels(*labels, stage).observe(getattr(event, f"{stage}_s"))
        for counter, value in zip(counters, (event.rows, event.bytes_in, event.bytes_out), strict=True):
            counter.labels(*labels).inc(value)

    return count


def ns_each(work: Callable[[], object], count: int) -> tuple[float, float]:
    """Median and spread (median absolute deviation) of ns of processor time for each of `count` pieces."""
    times: list[float] = []
    for _ in range(ROUNDS):
        begun = time.thread_time_ns()
        work()
        times.append((time.thread_time_ns() - begun) / count)
    middle = statistics.median(times)
    return middle, statistics.median(abs(one - middle) for one in times)


def main() -> None:
    events = [served(number) for number in range(EVENTS)]
    batches = [Ran(model="m", variant="v", requests=4, rows=4, seconds=1e-3, closed="full") for _ in range(EVENTS)]
    metrics, library = Metrics(), by_the_library()
    gauges = [Gauges(model=f"model-{i}", variant="reference", lanes=(Lane(),)) for i in range(10)]

    def feed(sink: Callable[[Served], None], what: list[Served]) -> Callable[[], None]:
        def work() -> None:
            for event in what:
                sink(event)

        return work

    cases: list[tuple[str, Callable[[], object], int]] = [
        ("put a Served together", lambda: [served(n) for n in range(EVENTS)], EVENTS),
        ("count a Served", feed(metrics, events), EVENTS),
        ("count a Ran", feed(metrics, batches), EVENTS),
        ("count a Served by the library", feed(library, events[:2000]), 2000),
        ("scrape, text", lambda: metrics.page("", gauges), 1),
        ("scrape, OpenMetrics", lambda: metrics.page("application/openmetrics-text", gauges), 1),
    ]
    for name, work, count in cases:
        middle, spread = ns_each(work, count)
        print(f"{name:32} {middle:14,.0f} ns ± {spread:,.0f}  ({ROUNDS} rounds of {count})")
    print(f"page of ten models: {len(metrics.page('', gauges)[1]):,} bytes; Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
