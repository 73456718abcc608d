"""The view model: a record turned into the tiles, rows and sentences that the template shows. Pure.

The template knows no figures and no metrics: everything that it prints is a string made here, so that tests can look at
words instead of markup. `hasten.report.document` calls it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hasten.report.bars import Bars
from hasten.report.by_class import ByClass, by_class
from hasten.report.chart import latency_bars, speed_accuracy, undrawn
from hasten.report.facts import Command, Share, commands, facts_of, method_of, shares
from hasten.report.format import (
    FigureText,
    amount,
    count,
    figure_text,
    is_measured,
    unit_of,
)
from hasten.report.operators import Operators, operators_of
from hasten.report.plots import Chart
from hasten.report.room import Offer, offers
from hasten.report.serving import Plan, plan_of
from hasten.report.told import Told, told
from hasten.report.tried import Group, Tried, grouped, kind_of, tried
from hasten.report.verdict import (
    Callout,
    Hero,
    all_variants,
    broken_and_fast,
    hero,
    picked_evidence,
)
from hasten.report.words import clean, figure_label, metric_words, objective_text, plainly, variant_names
from hasten.spec.evidence import Evidence, Record
from hasten.spec.measurement import Figure, Measurement
from hasten.spec.variant import REFERENCE

__all__ = ["Page", "Row", "Step", "Tile", "page_of"]

_TILES = 8  # two full rows of four
_OUTCOMES = {"accepted": "met", "unproven": "not proven", "rejected": "missed"}
_LADDER = (
    "speedup", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "throughput_rps", "accuracy", "accuracy_change",
    "memory_peak_mb", "load_ms", "cost_per_million_usd", "energy_per_prediction_j",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """One key figure: now, before, and how it was found or why it is missing."""

    label: str
    text: FigureText
    before: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One figure for every variant of the ladder."""

    label: str
    cells: tuple[FigureText, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One variant of the ladder: its name, its role, how it is made, and each objective's check."""

    name: str
    role: str
    how: str
    checks: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Everything on the page."""

    title: str
    hero: Hero
    callout: Callout | None
    tiles: tuple[Tile, ...]
    chart: Chart | None
    scale_turns: str
    latency: Bars | None
    undrawn: tuple[str, ...]
    kinds: tuple[str, ...]
    metric: str
    steps: tuple[Step, ...]
    rows: tuple[Row, ...]
    classes: tuple[ByClass, ...]
    changed: tuple[Told, ...]
    unchanged: str
    operators: Operators | None
    serving: Plan | None
    offers: tuple[Offer, ...]
    tried: tuple[Tried, ...]
    untried: tuple[Group, ...]
    facts: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    method: tuple[str, ...]
    shares: tuple[Share, ...]
    commands: tuple[Command, ...]


def page_of(record: Record, title: str) -> Page:
    """Return the page of a record."""
    names = variant_names(all_variants(record))
    chart, candidates = speed_accuracy(record), tried(record)
    return Page(
        title=clean(title),
        hero=hero(record, title),
        callout=broken_and_fast(record),
        tiles=tuple(_tiles(record)),
        chart=chart,
        scale_turns=_scale_turns(chart),
        latency=latency_bars(record, [(item, _role(record, item)) for item in _ladder(record)]),
        undrawn=undrawn(record),
        kinds=tuple(dict.fromkeys(kind_of(record, item) for item in record.tuning)),
        metric=metric_words(record.reference.measurement.metric),
        steps=tuple(_steps(record, names)),
        rows=tuple(_rows(_ladder(record))),
        classes=by_class(record),
        changed=told(record, record.picked),
        unchanged=_unchanged(record),
        operators=operators_of(record),
        serving=plan_of(record),
        offers=offers(record),
        tried=tuple(item for item in candidates if item.measured),
        untried=grouped(candidates),
        facts=tuple(facts_of(record, title)),
        method=tuple(method_of(record)),
        shares=shares(record),
        commands=commands(record),
    )


def _unchanged(record: Record) -> str:
    """What to say where no answer of the picked variant changed; empty where some did, or nothing was picked."""
    tuned = next((item for item in record.tuning if item.variant.id == record.picked), None)
    if record.picked == REFERENCE or tuned is None or told(record, record.picked):
        return ""
    samples = tuned.measurement.accuracy_change.n
    return f"None of its answers to {count(samples)} tuning samples differs from the reference’s." if samples else ""


def _scale_turns(chart: Chart | None) -> str:
    """From which change on the plot's scale is logarithmic; empty where it is straight throughout."""
    if chart is None or chart.threshold is None:
        return ""
    return amount(chart.threshold / chart.unit.scale, chart.unit).lstrip("+")


def _tiles(record: Record) -> Iterable[Tile]:
    """Key figures of the picked variant beside the reference's; of the reference alone where nothing was picked."""
    picked = picked_evidence(record)
    picked = None if picked is None or picked.variant.id == REFERENCE else picked
    shown = (picked or record.reference).measurement
    names = ["latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "throughput_rps"]
    names = ["speedup", *names, "accuracy_change"] if picked else [*names, "accuracy"]
    priced = record.goal.prices.machine_hour_usd is not None
    cost = ["cost_per_million_usd"] if priced else []
    for name in [*names, "memory_peak_mb", *cost, "load_ms", "energy_per_prediction_j"][:_TILES]:
        text = figure_text(shown.figure(name), unit_of(name, shown.metric))
        compared = picked is not None and name not in ("speedup", "accuracy_change")
        before = _before(record.reference.measurement, name) if compared else ""
        yield Tile(label=figure_label(name, shown.metric), text=text, before=before)


def _before(measurement: Measurement, name: str) -> str:
    return figure_text(measurement.figure(name), unit_of(name, measurement.metric)).value


def _ladder(record: Record) -> list[Evidence]:
    """Evidence on holdout data: the picked variant, further steps, claims that failed, the reference last."""
    found = {item.variant.id: item for item in record.holdout if item.variant.id != REFERENCE}
    steps = [id_ for id_ in (record.picked, *record.ladder) if id_ in found]
    return [*(found[id_] for id_ in dict.fromkeys([*steps, *found])), record.reference]


def _steps(record: Record, names: dict[str, str]) -> Iterable[Step]:
    metric = record.reference.measurement.metric
    for item in _ladder(record):
        yield Step(
            name=names[item.variant.id],
            role=_role(record, item),
            how=f"{item.variant.target}; {item.variant.recipe_text}",
            checks=tuple(
                (objective_text(check.objective, check.bound, metric), _OUTCOMES[check.outcome], plainly(check.reason))
                for check in item.checks
            ),
        )


def _role(record: Record, item: Evidence) -> str:
    if item.variant.id == REFERENCE:
        return "reference"
    if item.variant.id == record.picked:
        return "picked"
    return "step" if item.variant.id in record.ladder else "not accepted"


def _rows(ladder: Sequence[Evidence]) -> Iterable[Row]:
    """One row for each figure that any variant has, then third parties' and secondary figures."""
    extra = dict.fromkeys(name for item in ladder for name in item.measurement.extra)
    for name in (*_LADDER, *extra):
        figures = [_figure(item.measurement, name) for item in ladder]
        if not any(is_measured(figure) for figure in figures) and name in ("cost_per_million_usd",):
            continue
        metric = ladder[0].measurement.metric
        cells = tuple(figure_text(figure, unit_of(name, metric)) for figure in figures)
        yield Row(label=figure_label(name, metric), cells=cells)


def _figure(measurement: Measurement, name: str) -> Figure:
    known = name in _LADDER or name in measurement.extra
    return measurement.figure(name) if known else Figure(value=None, low=None, high=None, n=0, reason="not measured")
