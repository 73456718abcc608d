"""What happened between two scrapes, model by model. Pure.

Percentiles come from the difference of two histograms, over all variants and lanes of a model: fixed bounds add up. A
counter that fell is one of a server that started anew: then all that it shows has happened since.
"""

from __future__ import annotations

import math

from hasten.observe.histogram import quantile
from hasten.observe.scrape import Scrape
from hasten.spec.values import Value

__all__ = ["Rates", "rates"]

_DURATION = "hasten_request_duration_seconds_bucket"


class Rates(Value, frozen=True):
    """One model over an interval. Latencies are milliseconds, `batch` is the mean number of requests that ran together;
    they are None where nothing was answered. `busy` counts engine instances that ran, on average. `refusals` are by
    reason, per second; `restarts` are those since the server started.
    """

    model: str
    ready: bool | None
    workers: int
    workers_up: int
    rps: float
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    batch: float | None
    queue: int
    queue_work_s: float
    busy: float
    refusals_per_s: float
    refusals: dict[str, float]
    restarts: int


def rates(before: Scrape, after: Scrape, seconds: float) -> list[Rates]:
    """Return the models of `after` by name, those first that are served; `seconds` lie between the scrapes."""
    served = {labels["model"] for labels, _ in after.of("hasten_model_ready")}
    refused = {labels["model"] for labels, _ in after.of("hasten_refusals_total")}
    return [_of(model, before, after, seconds) for model in [*sorted(served), *sorted(refused - served)]]


def _of(model: str, before: Scrape, after: Scrape, seconds: float) -> Rates:
    def rise(name: str) -> float:
        return _rise(before.total(name, model), after.total(name, model))

    bounds, counts = _buckets(model, before, after)
    ready = after.of("hasten_model_ready", model)
    batches = rise("hasten_batch_requests_count")
    refusals = _refusals(model, before, after, seconds)
    return Rates(
        model=model,
        ready=all(value > 0 for _, value in ready) if ready else None,
        workers=round(after.total("hasten_workers", model)),
        workers_up=round(after.total("hasten_workers_up", model)),
        rps=sum(counts) / seconds,
        latency_p50_ms=_ms(quantile(bounds, counts, 0.50)),
        latency_p95_ms=_ms(quantile(bounds, counts, 0.95)),
        latency_p99_ms=_ms(quantile(bounds, counts, 0.99)),
        batch=rise("hasten_batch_requests_sum") / batches if batches else None,
        queue=round(after.total("hasten_queue_requests", model)),
        queue_work_s=after.total("hasten_queue_work_seconds", model),
        busy=rise("hasten_engine_busy_seconds_total") / seconds,
        refusals_per_s=sum(refusals.values()),
        refusals=refusals,
        restarts=round(after.total("hasten_worker_restarts_total", model)),
    )


def _rise(before: float, after: float) -> float:
    return after - before if after >= before else after


def _buckets(model: str, before: Scrape, after: Scrape) -> tuple[list[float], list[float]]:
    """Bounds without the infinite one, and what each bucket gained."""
    old, new = _cumulative(model, before), _cumulative(model, after)
    restarted = new.get(math.inf, 0.0) < old.get(math.inf, 0.0)
    edges = sorted(new)
    gained = [new[edge] - (0.0 if restarted else old.get(edge, 0.0)) for edge in edges]
    return edges[:-1], [later - earlier for earlier, later in zip([0.0, *gained], gained, strict=False)]


def _cumulative(model: str, scrape: Scrape) -> dict[float, float]:
    found: dict[float, float] = {}
    for labels, value in scrape.of(_DURATION, model):
        edge = float(labels["le"])
        found[edge] = found.get(edge, 0.0) + value
    return found


def _refusals(model: str, before: Scrape, after: Scrape, seconds: float) -> dict[str, float]:
    old, new = _by_reason(model, before), _by_reason(model, after)
    risen = {reason: _rise(old.get(reason, 0.0), value) / seconds for reason, value in new.items()}
    return {reason: value for reason, value in risen.items() if value}


def _by_reason(model: str, scrape: Scrape) -> dict[str, float]:
    """Refusals of all lanes."""
    found: dict[str, float] = {}
    for labels, value in scrape.of("hasten_refusals_total", model):
        found[labels["reason"]] = found.get(labels["reason"], 0.0) + value
    return found


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3
