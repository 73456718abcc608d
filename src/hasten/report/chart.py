"""What the drawings show: the record's figures as points and rows, before anything is drawn. Pure.

The speed-accuracy plot has tuning figures, because all candidates were measured there alike; the latency plot has
held-out figures. `hasten.report.page` calls it; `hasten.report.plots` and `hasten.report.bars` draw it.
"""

from __future__ import annotations

from collections.abc import Sequence

from hasten.report.bars import Bar, BarRow, Bars
from hasten.report.format import amount, figure_text, is_measured, unit_of
from hasten.report.plots import Chart, Point, Span
from hasten.report.tried import kind_of
from hasten.report.verdict import all_variants
from hasten.report.words import metric_words, objective_text, variant_names
from hasten.spec.evidence import Evidence, Record
from hasten.spec.measurement import Figure, MetricInfo

__all__ = ["latency_bars", "speed_accuracy", "undrawn"]

_MS = unit_of("latency_p50_ms", MetricInfo(name="", higher_is_better=False))
_PERCENTILES = {"p50": "latency_p50_ms", "p95": "latency_p95_ms", "p99": "latency_p99_ms"}
_LONGEST_NAME = 34


def speed_accuracy(record: Record) -> Chart | None:
    """Return the speed-accuracy plot, or None where nothing has both figures."""
    metric, names = record.reference.measurement.metric, variant_names(all_variants(record))
    drawn = [item for item in record.tuning if _drawable(item)]
    if not drawn:
        return None
    front = _front([item for item in drawn if kind_of(record, item) != "refused"], metric.higher_is_better)
    points = tuple(_point(record, item, names[item.variant.id], front) for item in drawn)
    unit, bound, what = unit_of("accuracy_change", metric), record.goal.slo.accuracy_drop_max, metric_words(metric)
    told_unit = f", {unit.suffix.strip()}" if unit.suffix.strip() else ""
    turned = "" if metric.higher_is_better else " (up is better)"
    return Chart(
        points=points,
        bound=bound * unit.scale,
        higher_is_better=metric.higher_is_better,
        unit=unit,
        y_title=f"change in {what}{told_unit}{turned}",
        x_title="speedup over the reference",
        bound_text=objective_text("accuracy_drop_max", bound, metric),
        description=f"Speedup against change in {what}, tuning data. {'; '.join(point.story for point in points)}.",
    )


def _drawable(item: Evidence) -> bool:
    return is_measured(item.measurement.speedup) and is_measured(item.measurement.accuracy_change)


def undrawn(record: Record) -> tuple[str, ...]:
    """Return the names of measured candidates that lack a figure that the plot needs."""
    names = variant_names(all_variants(record))
    return tuple(names[item.variant.id] for item in record.tuning if not _drawable(item))


def _point(record: Record, item: Evidence, name: str, front: set[str]) -> Point:
    m, kind = item.measurement, kind_of(record, item)
    unit = unit_of("accuracy_change", m.metric)
    speed = figure_text(m.speedup, unit_of("speedup", m.metric)).full
    short = "reference" if kind == "reference" else name
    return Point(
        name=short if len(short) <= _LONGEST_NAME else short[: _LONGEST_NAME - 1] + "…",
        story=f"{name}: {speed}, {metric_words(m.metric)} {figure_text(m.accuracy_change, unit).full}",
        kind=kind,
        speed=_span(m.speedup),
        change=_span(m.accuracy_change, unit.scale),
        front=item.variant.id in front,
    )


def _span(figure: Figure, scale: float = 1.0) -> Span:
    """Value, low and high; without an interval the bars have no length."""
    value = figure.value or 0.0
    low = value if figure.low is None else figure.low
    high = value if figure.high is None else figure.high
    return value * scale, low * scale, high * scale


def _front(items: Sequence[Evidence], higher_is_better: bool) -> set[str]:
    """Ids that no other candidate beats in speed and accuracy at once (Pareto front)."""
    sign = 1.0 if higher_is_better else -1.0
    spots = {
        item.variant.id: (item.measurement.speedup.value or 0.0, sign * (item.measurement.accuracy_change.value or 0.0))
        for item in items
    }
    return {
        id_
        for id_, (speed, change) in spots.items()
        if not any(s >= speed and c >= change and (s, c) != (speed, change) for s, c in spots.values())
    }


def latency_bars(record: Record, claims: Sequence[tuple[Evidence, str]]) -> Bars | None:
    """Return the latencies of `claims` (evidence and role), or None where none was measured."""
    names = variant_names(all_variants(record))
    rows = tuple(_bar_row(item, role, names[item.variant.id]) for item, role in claims)
    if not any(row.bars for row in rows):
        return None
    slo = record.goal.slo
    asked = {"p50": slo.latency_p50_ms, "p95": slo.latency_p95_ms, "p99": slo.latency_p99_ms}
    return Bars(
        rows=rows,
        bounds=tuple((f"{name} bound {amount(ms, _MS)}", ms) for name, ms in asked.items() if ms is not None),
        description=f"Latency on held-out data. {'; '.join(f'{row.name}: {row.figures}' for row in rows)}.",
    )


def _bar_row(item: Evidence, role: str, name: str) -> BarRow:
    figures = {short: item.measurement.figure(key) for short, key in _PERCENTILES.items()}
    kind = {"picked": "picked", "step": "ladder", "reference": "reference"}.get(role, "refused")
    return BarRow(
        name=name if role == "reference" else f"{name} ({role})",
        kind=kind,
        figures=" · ".join(f"{short} {figure_text(f, _MS).value}" for short, f in figures.items()),
        bars=tuple(Bar(short=short, span=_span(f)) for short, f in figures.items() if is_measured(f)),
    )
