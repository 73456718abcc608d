"""The view model: a record turned into the tiles, rows and sentences that the template shows. Pure.

The template knows no figures and no metrics: everything that it prints is a string made here, so that tests can look at
words instead of markup. `hasten.report.document` calls it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hasten.report.format import (
    POINTS,
    FigureText,
    Unit,
    amount,
    bytes_text,
    count,
    duration,
    figure_text,
    is_measured,
    unit_of,
)
from hasten.report.plots import Chart, Kind, Point, Span
from hasten.report.verdict import (
    Callout,
    Hero,
    Told,
    all_variants,
    broken_and_fast,
    held_out,
    hero,
    model_name,
    picked_evidence,
    told,
)
from hasten.report.words import clean, figure_label, metric_words, objective_text, variant_names
from hasten.spec.evidence import Evidence, Record
from hasten.spec.measurement import Figure, Measurement
from hasten.spec.variant import REFERENCE

__all__ = ["Page", "Row", "Tile", "page_of"]

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
class Tried:
    """One candidate and what became of it."""

    name: str
    how: str
    outcome: str
    state: str
    speed: FigureText
    accuracy: FigureText
    change: FigureText
    reason: str
    stories: tuple[Told, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Everything on the page."""

    title: str
    hero: Hero
    callout: Callout | None
    tiles: tuple[Tile, ...]
    chart: Chart | None
    metric: str
    steps: tuple[Step, ...]
    rows: tuple[Row, ...]
    tried: tuple[Tried, ...]
    facts: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    method: tuple[str, ...]
    command: str


def page_of(record: Record, title: str) -> Page:
    """Return the page of a record."""
    names = variant_names(all_variants(record))
    return Page(
        title=clean(title),
        hero=hero(record, title),
        callout=broken_and_fast(record),
        tiles=tuple(_tiles(record)),
        chart=_chart(record, names),
        metric=metric_words(record.reference.measurement.metric),
        steps=tuple(_steps(record, names)),
        rows=tuple(_rows(_ladder(record))),
        tried=tuple(_tried(record, names)),
        facts=tuple(_facts(record, title)),
        method=tuple(_method(record)),
        command=clean(record.command),
    )


def _tiles(record: Record) -> Iterable[Tile]:
    """Key figures of the picked variant beside the reference's; of the reference alone where nothing was picked."""
    picked = picked_evidence(record)
    shown = (picked or record.reference).measurement
    names = ["latency_p50_ms", "latency_p99_ms", "throughput_rps", "accuracy", "memory_peak_mb"]
    names = ["speedup", *names] if picked else names
    if record.goal.prices.machine_hour_usd is not None:
        names.append("cost_per_million_usd")
    for name in names:
        text = figure_text(shown.figure(name), unit_of(name, shown.metric))
        before = "" if picked is None or name == "speedup" else _before(record.reference.measurement, name)
        yield Tile(label=figure_label(name, shown.metric), text=text, before=before)


def _before(measurement: Measurement, name: str) -> str:
    return figure_text(measurement.figure(name), unit_of(name, measurement.metric)).value


def _ladder(record: Record) -> list[Evidence]:
    """Evidence on holdout data: the picked variant first, the others, the reference last."""
    others = sorted(record.holdout, key=lambda item: item.variant.id != record.picked)
    return [*others, record.reference]


def _steps(record: Record, names: dict[str, str]) -> Iterable[Step]:
    metric = record.reference.measurement.metric
    for item in _ladder(record):
        yield Step(
            name=names[item.variant.id],
            role=_role(record, item),
            how=f"{item.variant.target}; {item.variant.recipe_text}",
            checks=tuple(
                (_objective(check.objective, check.bound, record), check.outcome, clean(check.reason))
                for check in item.checks
                if metric
            ),
        )


def _objective(name: str, bound: float, record: Record) -> str:
    if name == "gain":
        return f"faster than the reference by {amount(bound - 1, Unit(suffix=' %', scale=100, most=1))} or more"
    return objective_text(name, bound, record.reference.measurement.metric)


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


def _tried(record: Record, names: dict[str, str]) -> Iterable[Tried]:
    """Every candidate, fastest first; those without a speed at the end."""
    reasons = {item.variant.id: item for item in record.rejected}
    measured = {item.variant.id: item for item in record.tuning}
    order = sorted(measured.values(), key=lambda item: -(item.measurement.speedup.value or 0.0))
    for item in order:
        rejection = reasons.get(item.variant.id)
        outcome, state = _fate(record, item.variant.id, rejection.stage if rejection else "")
        yield _candidate(record, names, item, outcome, state, rejection.reason if rejection else "")
    for id_, rejection in reasons.items():
        if id_ not in measured:
            yield Tried(
                name=names[id_],
                how=f"{rejection.variant.target}; {rejection.variant.recipe_text}",
                outcome=_STAGES[rejection.stage],
                state="refused",
                speed=_NONE,
                accuracy=_NONE,
                change=_NONE,
                reason=clean(rejection.reason),
                stories=(),
            )


_NONE = FigureText(value="–", measured=False)
_STAGES = {
    "build": "could not be built",
    "run": "did not run",
    "tuning": "not picked",
    "holdout": "claim not proven",
    "budget": "out of time",
}


def _candidate(record: Record, names: dict[str, str], item: Evidence, outcome: str, state: str, reason: str) -> Tried:
    m = item.measurement
    return Tried(
        name=names[item.variant.id],
        how=f"{item.variant.target}; {item.variant.recipe_text}",
        outcome=outcome,
        state=state,
        speed=figure_text(m.speedup, unit_of("speedup", m.metric)),
        accuracy=figure_text(m.accuracy, unit_of("accuracy", m.metric)),
        change=figure_text(m.accuracy_change, unit_of("accuracy_change", m.metric)),
        reason=clean(reason),
        stories=told(record.stories, item.variant.id),
    )


def _fate(record: Record, id_: str, stage: str) -> tuple[str, str]:
    """What became of a candidate, in words and as a state for its colour."""
    if id_ == REFERENCE:
        return "the reference against itself", "reference"
    if id_ == record.picked:
        return "picked", "picked"
    if stage:
        return _STAGES[stage], "refused"
    return ("step of the ladder", "ladder") if id_ in record.ladder else ("measured", "accepted")


def _chart(record: Record, names: dict[str, str]) -> Chart | None:
    metric = record.reference.measurement.metric
    unit = unit_of("accuracy_change", metric)
    plotted = [item for item in record.tuning if _plottable(item)]
    front = _front(plotted, metric.higher_is_better)
    points = tuple(
        Point(
            name=names[item.variant.id],
            story=_story(item, names),
            kind=_kind(record, item),
            speed=_span(item.measurement.speedup, 1.0),
            change=_span(item.measurement.accuracy_change, unit.scale),
            front=item.variant.id in front,
        )
        for item in plotted
    )
    if not points:
        return None
    what = metric_words(metric)
    points_word = "points" if unit is POINTS else (metric.unit or "")
    bound = record.goal.slo.accuracy_drop_max
    return Chart(
        points=points,
        bound=bound * unit.scale,
        higher_is_better=metric.higher_is_better,
        unit=unit,
        y_title=f"change of {what}, {points_word}",
        x_title="speed against the reference",
        bound_text=objective_text("accuracy_drop_max", bound, metric),
        description=f"Speed against change of {what} for {len(points)} candidates; the table below has every number.",
    )


def _plottable(item: Evidence) -> bool:
    return is_measured(item.measurement.speedup) and is_measured(item.measurement.accuracy_change)


def _span(figure: Figure, scale: float) -> Span:
    assert figure.value is not None
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    return figure.value * scale, low * scale, high * scale


def _kind(record: Record, item: Evidence) -> Kind:
    if item.variant.id == REFERENCE:
        return "reference"
    if item.variant.id == record.picked:
        return "picked"
    if item.variant.id in record.ladder:
        return "ladder"
    return "refused" if item.outcome == "rejected" else "unproven" if item.outcome == "unproven" else "accepted"


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


def _story(item: Evidence, names: dict[str, str]) -> str:
    m = item.measurement
    speed = figure_text(m.speedup, unit_of("speedup", m.metric)).full
    change = figure_text(m.accuracy_change, unit_of("accuracy_change", m.metric)).full
    return f"{names[item.variant.id]}: speed {speed}, {metric_words(m.metric)} {change}"


def _facts(record: Record, title: str) -> Iterable[tuple[str, tuple[tuple[str, str], ...]]]:
    env, model, data = record.environment, record.model, record.data
    yield "Model", tuple(_known({"name": model_name(record, title), **model}))
    yield "Data", tuple(_known(data))
    packages = ", ".join(f"{name} {version}" for name, version in env.packages.items())
    yield (
        "Machine",
        (
            ("processor", clean(env.processor) + (" (virtual machine)" if env.virtual else "")),
            ("instruction sets", ", ".join(env.features) or "not known"),
            ("cores", f"{env.cores_logical} logical, {env.cores_physical} physical"),
            ("memory", f"{env.memory_mb / 1024:.1f} GiB"),
            ("system", f"{env.system}, {env.architecture}, Python {env.python}"),
            ("versions", packages),
        ),
    )
    yield "Run", (("seed", str(record.seed)), ("time taken", duration(record.elapsed_s)))


def _known(values: dict[str, str | int]) -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        label = {"sha256": "SHA-256", "bytes": "size"}.get(key, key.replace("_", " "))
        if key == "bytes" and isinstance(value, int):
            yield label, bytes_text(value)
        else:
            yield label, count(value) if isinstance(value, int) else clean(str(value))


def _method(record: Record) -> Iterable[str]:
    samples = held_out(record, record.reference.measurement.accuracy_change)
    yield (
        "Speedups are paired: reference and candidate each run in a process of their own and take turns on the same "
        "samples in random order, one ratio a round, so that drift of the machine cancels. The interval is a "
        "studentized bootstrap over rounds."
    )
    yield (
        "Accuracy changes are paired by sample. Calibration data shaped the candidates, tuning data picked among them, "
        f"and the claim was computed once on {samples or 'the'} holdout samples that no step had seen; speed was "
        "measured anew for it."
    )
    yield (
        "Every interval covers 95 %. A percentile is shown only where the sample is large enough for it. What was not "
        "measured says why."
    )
    own = record.reference.measurement.speedup
    if is_measured(own):
        text = figure_text(own, unit_of("speedup", record.reference.measurement.metric)).full
        yield f"Noise check, the reference against a second process of itself: {text}."
