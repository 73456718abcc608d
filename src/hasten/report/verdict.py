"""The verdict in plain words, and the story of the fast candidate whose answers broke.

Everything here is a pure function of the record. `hasten.report.page` calls it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hasten.report.format import amount, count, figure_text, interval, is_measured, unit_of
from hasten.report.told import Told, told
from hasten.report.words import (
    FIGURE_OF_OBJECTIVE,
    asked_for,
    clean,
    metric_words,
    objective_text,
    plainly,
    variant_names,
)
from hasten.spec.evidence import Check, Evidence, Record
from hasten.spec.measurement import Figure, Measurement, MetricInfo
from hasten.spec.variant import Variant

__all__ = ["Callout", "Hero", "broken_and_fast", "hero", "model_name", "picked_evidence"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Hero:
    """What stands at the top: `kind` picks the colour, the words say the same without it."""

    kind: str
    badge: str
    headline: str
    lead: str
    details: tuple[str, ...]
    asked: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Callout:
    """A candidate that is fast and wrong."""

    id: str
    heading: str
    speed: str
    speed_interval: str
    change: str
    change_interval: str
    metric: str
    sentence: str
    stories: tuple[Told, ...]


def all_variants(record: Record) -> tuple[Variant, ...]:
    """Return every variant that the record names, the reference first."""
    groups = (record.holdout, record.tuning, record.rejected)
    return (record.reference.variant, *(item.variant for group in groups for item in group))


def picked_evidence(record: Record) -> Evidence | None:
    """Return the holdout evidence of the picked variant, if one was picked and measured."""
    return next((e for e in record.holdout if e.variant.id == record.picked), None)


def model_name(record: Record, title: str) -> str:
    """Return what the model is called; the page's title where the record does not say."""
    return clean(str(record.model.get("name") or title))


def hero(record: Record, title: str) -> Hero:
    """Put the verdict into words."""
    asked = asked_for(record.goal, record.reference.measurement.metric)
    if record.verdict == "infeasible":
        return _infeasible(record, title, asked)
    picked = picked_evidence(record)
    if record.verdict == "keep_reference" or picked is None:
        return _keep(record, title, asked)
    return _accepted(record, picked, title, asked)


def _accepted(record: Record, picked: Evidence, title: str, asked: tuple[str, ...]) -> Hero:
    m, target = picked.measurement, picked.variant.target
    headline, speed = _speed_words(m.speedup, model_name(record, title))
    samples = held_out(record, m.accuracy_change)
    shown = f", shown on {samples} held-out samples" if samples else ""
    return Hero(
        kind="accepted",
        badge="Accepted: every objective is met on held-out data",
        headline=headline,
        lead=f"{speed}{_change_words(m.metric, m.accuracy_change)}{shown}.",
        details=(f"Run it with {target}; recipe: {picked.variant.recipe_text}.",),
        asked=asked,
    )


def held_out(record: Record, change: Figure) -> str:
    """Return how many samples the claim stands on: those that were answered, or else the size of the split."""
    size = change.n or record.data.get("holdout")
    return count(size) if isinstance(size, int) and size else str(size or "")


def _speed_words(speedup: Figure, model: str) -> tuple[str, str]:
    """The headline, and the beginning of the sentence under it."""
    text = figure_text(speedup, unit_of("speedup", MetricInfo(name="", higher_is_better=True)))
    if not text.measured:
        return f"{model} meets its objectives", f"Speedup {text.full}, "
    bounds = f"95 % interval {text.interval}, " if text.interval else ""
    low, high = speedup.low or 0.0, speedup.high or 0.0
    if low > 1:
        return f"{model} runs {text.value} faster", bounds
    if 0 < high < 1:
        return f"{model} runs at {text.value} the reference’s speed", bounds
    return f"{model} runs as fast as before", f"Speedup {text.value}, {bounds}"


def _change_words(metric: MetricInfo, change: Figure) -> str:
    name, unit = metric_words(metric), unit_of("accuracy_change", metric)
    if not is_measured(change):
        return f"with the change of {name} {figure_text(change, unit).full}"
    text = figure_text(change, unit)
    bounds = f" ({text.interval})" if text.interval else ""
    verb = "unchanged at" if change.value == 0 else "changed by"
    return f"with {name} {verb} {text.value}{bounds}"


def _keep(record: Record, title: str, asked: tuple[str, ...]) -> Hero:
    return Hero(
        kind="keep",
        badge="Keep the reference: nothing faster was proven safe",
        headline="Keep the reference",
        lead=_lead(record),
        details=(f"{model_name(record, title)} stays as it is: {record.reference.variant.target}.",),
        asked=asked,
    )


def _lead(record: Record) -> str:
    """The summary as a sentence under a headline that has its first words."""
    text = plainly(clean(record.summary).removeprefix("Keep the reference: "))
    return text[:1].upper() + text[1:]


def _infeasible(record: Record, title: str, asked: tuple[str, ...]) -> Hero:
    binding = binding_checks(record)
    metric = record.reference.measurement.metric
    texts = [objective_text(check.objective, check.bound, metric) for check in binding]
    nothing = "no candidate meets all objectives at once"
    closest = (_closest(record, check, metric) for check in binding)
    return Hero(
        kind="infeasible",
        badge="Infeasible: not every objective can be met here",
        headline=f"Infeasible: nothing reaches {' or '.join(texts)}" if texts else f"Infeasible: {nothing}",
        lead=_lead(record),
        details=(f"Model: {model_name(record, title)}.", *filter(None, closest)),
        asked=asked,
    )


def binding_checks(record: Record) -> tuple[Check, ...]:
    """Return one check for each objective that nothing measured could meet."""
    checks = [c for e in (*record.tuning, *record.holdout, record.reference) for c in e.checks]
    met = Counter(check.objective for check in checks if check.outcome == "accepted")
    ours = ("gain",)  # asked for by hasten, never the reason why a goal cannot be met
    unmet = {c.objective: c for c in checks if not met[c.objective] and c.objective not in ours}
    return tuple(unmet.values())


def _closest(record: Record, check: Check, metric: MetricInfo) -> str:
    """The candidate that came nearest to an objective that none met."""
    name = FIGURE_OF_OBJECTIVE.get(check.objective, check.objective)
    rising = name in ("throughput_rps", "speedup") or (name == "accuracy_change" and metric.higher_is_better)
    found = {e.variant.id: f for e in record.tuning if (f := _figure(e, name)) and is_measured(f)}
    if not found:
        return ""
    best = (max if rising else min)(found, key=lambda id_: found[id_].value or 0.0)
    who, unit = variant_names(all_variants(record))[best], unit_of(name, metric)
    bound = amount(abs(check.bound), unit).lstrip("+")
    return f"Closest to the bound of {bound}: {who} with {figure_text(found[best], unit).full}."


def _figure(evidence: Evidence, name: str) -> Figure | None:
    known = hasattr(evidence.measurement, name) or name in evidence.measurement.extra
    return evidence.measurement.figure(name) if known else None


def broken_and_fast(record: Record) -> Callout | None:
    """Return the fastest candidate that was refused for its answers although it is faster than the reference."""
    seen = {e.variant.id: e for e in (*record.tuning, *(r.evidence for r in record.rejected if r.evidence))}
    broken = [e for e in seen.values() if _is_broken(e)]
    if not broken:
        return None
    worst = max(broken, key=_speed)
    fastest = _speed(worst) >= max(_speed(e) for e in seen.values())
    return _callout(record, worst, fastest)


def _speed(evidence: Evidence) -> float:
    return evidence.measurement.speedup.value or 0.0


def _is_broken(evidence: Evidence) -> bool:
    speedup, change = evidence.measurement.speedup, evidence.measurement.accuracy_change
    if not (is_measured(speedup) and is_measured(change)) or evidence.outcome != "rejected":
        return False
    failed = {FIGURE_OF_OBJECTIVE.get(c.objective, c.objective) for c in evidence.checks if c.outcome == "rejected"}
    worse = (change.value or 0.0) * (1 if evidence.measurement.metric.higher_is_better else -1) < 0
    return (speedup.low or speedup.value or 0.0) > 1 and worse and (not failed or "accuracy_change" in failed)


def _callout(record: Record, broken: Evidence, fastest: bool) -> Callout:
    m, name = broken.measurement, variant_names(all_variants(record))[broken.variant.id]
    speed_unit, change_unit = unit_of("speedup", m.metric), unit_of("accuracy_change", m.metric)
    speed, change = figure_text(m.speedup, speed_unit), figure_text(m.accuracy_change, change_unit)
    levels = [figure_text(e.accuracy, unit_of("accuracy", m.metric)).value for e in (_before(record), m)]
    metric = metric_words(m.metric)
    return Callout(
        id=broken.variant.id,
        heading="The fastest candidate was refused" if fastest else "A fast candidate was refused",
        speed=speed.value,
        speed_interval=interval(m.speedup, speed_unit),
        change=change.value,
        change_interval=interval(m.accuracy_change, change_unit),
        metric=metric,
        sentence=f"{name} is {speed.value} faster, yet {metric} goes from {levels[0]} to {levels[1]}.",
        stories=told(record, broken.variant.id),
    )


def _before(record: Record) -> Measurement:
    reference = next((e for e in record.tuning if e.variant.id == record.reference.variant.id), record.reference)
    return reference.measurement
