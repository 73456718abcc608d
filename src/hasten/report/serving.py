"""How the picked variant is served: what was chosen, what was predicted and found at the load, what else was possible.

Pure; `hasten.report.page` calls it.
"""

from __future__ import annotations

from dataclasses import dataclass

from hasten.report.format import FigureText, figure_text, unit_of
from hasten.report.words import figure_label, plainly
from hasten.spec.evidence import Record
from hasten.spec.measurement import MetricInfo
from hasten.spec.serving import Deployment, Prediction, Serving

__all__ = ["Option", "Plan", "plan_of"]

_FIGURES = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "throughput_rps")
_MOST_OPTIONS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """One way to serve, with what was predicted for it."""

    how: str
    p50: str
    p99: str
    busy: str
    chosen: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Serving defaults of one variant: `rows` are figures as predicted and as found at the load."""

    how: str
    load: str
    reason: str
    capacity: FigureText
    cost: FigureText | None
    rows: tuple[tuple[str, FigureText, FigureText], ...]
    options: tuple[Option, ...]
    failed: int = 0


def plan_of(record: Record) -> Plan | None:
    """Return the plan of the picked variant; None where no serving defaults were chosen."""
    found = next((item for item in record.deployments if item.variant == record.picked), None)
    return None if found is None else _plan(found, record.reference.measurement.metric)


def _plan(found: Deployment, metric: MetricInfo) -> Plan:
    priced = found.cost_per_million_usd.value is not None
    return Plan(
        how=str(found.serving),
        load=f"{found.predicted.load_rps:.4g} requests/s",
        reason=plainly(found.reason),
        capacity=figure_text(found.capacity_rps, unit_of("throughput_rps", metric)),
        cost=figure_text(found.cost_per_million_usd, unit_of("cost_per_million_usd", metric)) if priced else None,
        rows=tuple(_rows(found, metric)),
        options=tuple(_options(found, metric)),
        failed=found.rehearsed.failed if found.rehearsed else 0,
    )


def _rows(found: Deployment, metric: MetricInfo) -> list[tuple[str, FigureText, FigureText]]:
    rows: list[tuple[str, FigureText, FigureText]] = []
    for name in _FIGURES:
        unit = unit_of(name, metric)
        predicted = figure_text(getattr(found.predicted, name), unit)
        missing = FigureText(value="not measured", note="the server was not rehearsed", measured=False)
        actual = figure_text(getattr(found.rehearsed, name), unit) if found.rehearsed else missing
        rows.append((figure_label(name, metric), predicted, actual))
    return rows


def _options(found: Deployment, metric: MetricInfo) -> list[Option]:
    """The chosen setting and the next best, as the simulation that chose saw them."""
    others = [_option(serving, predicted, metric) for serving, predicted in found.considered[:_MOST_OPTIONS]]
    return [_option(found.serving, found.predicted, metric, chosen=True), *others] if others else []


def _option(serving: Serving, predicted: Prediction, metric: MetricInfo, *, chosen: bool = False) -> Option:
    unit = unit_of("latency_p99_ms", metric)
    return Option(
        how=str(serving),
        p50=figure_text(predicted.latency_p50_ms, unit).value,
        p99=figure_text(predicted.latency_p99_ms, unit).value,
        busy=f"{predicted.utilisation:.0%}",
        chosen=chosen,
    )
