"""The claim class by class: which classes gained and lost, which say nothing, and how much chance is in all of it.

Pure; `hasten.report.page` calls it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median_low

from hasten.report.format import FigureText, count, figure_text, unit_of
from hasten.report.verdict import all_variants
from hasten.report.words import clean, metric_words, variant_names
from hasten.spec.evidence import ClassChange, ClassChanges, Record
from hasten.spec.measurement import Figure, MetricInfo
from hasten.stats.change import binary_change

__all__ = ["ByClass", "ClassRow", "by_class"]

_SHOWN = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRow:
    """One class. `state` is "lost" or "gained" where the interval of its change excludes zero."""

    name: str
    samples: str
    reference: FigureText
    accuracy: FigureText
    change: FigureText
    state: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ByClass:
    """One variant's classes: those that changed most as `rows`, all others as `more`."""

    variant: str
    picked: bool
    metric: str
    notes: tuple[str, ...]
    rows: tuple[ClassRow, ...]
    more: tuple[ClassRow, ...]
    more_label: str


def by_class(record: Record) -> tuple[ByClass, ...]:
    """Return the classes of each claimed variant, the picked one first; nothing where the data has no classes."""
    names = variant_names(all_variants(record))
    ordered = sorted(record.classes, key=lambda item: item.variant != record.picked)
    return tuple(_variant(record, item, names.get(item.variant, clean(item.variant))) for item in ordered)


def _variant(record: Record, found: ClassChanges, name: str) -> ByClass:
    changed = [item for item in found.changes if item.accuracy.value != item.reference.value]
    shown = changed[:_SHOWN]
    rest = [item for item in found.changes if item not in shown]
    missing = found.total - len(found.changes)
    left_out = f"; {count(missing)} that changed less are in no record" if missing else ""
    return ByClass(
        variant=name,
        picked=found.variant == record.picked,
        metric=metric_words(found.metric),
        notes=tuple(_notes(found, changed)),
        rows=tuple(_row(item, found.metric) for item in shown),
        more=tuple(_row(item, found.metric) for item in rest),
        more_label=f"{count(len(rest))} {'more ' if shown else ''}{_classes(len(rest))}{left_out}",
    )


def _row(item: ClassChange, metric: MetricInfo) -> ClassRow:
    level, moved = unit_of("accuracy", metric), unit_of("accuracy_change", metric)
    return ClassRow(
        name=clean(item.name),
        samples=count(item.samples),
        reference=figure_text(item.reference, level),
        accuracy=figure_text(item.accuracy, level),
        change=figure_text(item.change, moved),
        state=_state(item.change, metric.higher_is_better),
    )


def _state(change: Figure, higher_is_better: bool) -> str:
    if change.low is None or change.high is None or change.low <= 0 <= change.high:
        return ""
    return "gained" if (change.low > 0) == higher_is_better else "lost"


def _notes(found: ClassChanges, changed: Sequence[ClassChange]) -> Iterator[str]:
    said = [item for item in found.changes if item.change.value is not None]
    small = len(found.changes) - len(said)
    yield f"{_changed_words(len(changed))} of {count(found.total)} classes."
    apart = [item for item in said if _state(item.change, found.metric.higher_is_better)]
    if apart:
        yield (
            f"In {count(len(apart))} of them the interval excludes zero; each interval is for its class alone, and one "
            "in twenty does so by chance."
        )
    if said:
        yield _resolution(said, found.metric)
    if small:
        yield f"{count(small)} {_classes(small)} {'has' if small == 1 else 'have'} too few samples to say anything."


def _changed_words(number: int) -> str:
    return f"Accuracy changed in {count(number)}" if number else "Accuracy changed in none"


def _resolution(said: Sequence[ClassChange], metric: MetricInfo) -> str:
    """How much a class of the usual size leaves open even where no answer changed."""
    samples, unit = median_low(item.samples for item in said), unit_of("accuracy_change", metric)
    bounds = figure_text(binary_change([1.0] * samples, [1.0] * samples), unit).interval
    return f"Even where no answer changed, a class of {count(samples)} samples leaves {bounds}{unit.suffix} open."


def _classes(number: int) -> str:
    return "class" if number == 1 else "classes"
