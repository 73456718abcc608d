"""Everything that was tried: each candidate with its tuning figures, what became of it and why.

A candidate may stand in the record as a measurement and as several rejections; here they become one row. Pure;
`hasten.report.page` and `hasten.report.chart` call it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hasten.report.format import FigureText, figure_text, unit_of
from hasten.report.making import making
from hasten.report.plots import Kind
from hasten.report.told import Told, told
from hasten.report.verdict import all_variants
from hasten.report.words import plainly, variant_names
from hasten.spec.evidence import Evidence, Record, Rejection
from hasten.spec.measurement import NOT_MEASURED
from hasten.spec.variant import REFERENCE, Variant

__all__ = ["Group", "Tried", "grouped", "kind_of", "tried"]

_NONE = FigureText(value="–", measured=False)
_STAGES = {
    "build": "could not be built",
    "run": "could not run",
    "holdout": "claim failed",
    "budget": "not tried, time was up",
    "forecast": "not tried, unlikely to win",
}


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
    making: tuple[str, ...]

    @property
    def measured(self) -> bool:
        """Whether there is any figure to show."""
        return self.speed.measured or self.accuracy.measured


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Candidates without figures that share what became of them, and why."""

    outcome: str
    reason: str
    members: tuple[Tried, ...]


def kind_of(record: Record, item: Evidence) -> Kind:
    """Return what became of a measured candidate: its mark in the plot, its colour in the table."""
    id_ = item.variant.id
    if id_ == REFERENCE:
        return "reference"
    if id_ == record.picked:
        return "picked"
    if id_ in record.ladder:
        return "ladder"
    failed = any(r.variant.id == id_ and r.stage == "holdout" for r in record.rejected)
    return "refused" if failed or item.outcome == "rejected" else item.outcome


def tried(record: Record) -> tuple[Tried, ...]:
    """Return every candidate once, the fastest first, those without figures last."""
    names = variant_names(all_variants(record))
    measured = {item.variant.id: item for item in record.tuning}
    glanced = (r.evidence for r in record.rejected if r.evidence is not None)
    speeds = {e.variant.id: e.measurement.speedup.value or 0.0 for e in (*glanced, *record.tuning)}
    variants = {v.id: v for v in all_variants(record) if v.id in measured or v.id != REFERENCE}
    order = sorted(variants.values(), key=lambda v: -speeds.get(v.id, -1.0))
    return tuple(_candidate(record, v, measured.get(v.id), names[v.id]) for v in order)


def grouped(items: Iterable[Tried]) -> tuple[Group, ...]:
    """Return the candidates without figures, joined where their outcome and its reason are the same."""
    groups: dict[tuple[str, str], list[Tried]] = {}
    for item in items:
        if not item.measured:
            groups.setdefault((item.outcome, item.reason), []).append(item)
    return tuple(Group(outcome=key[0], reason=key[1], members=tuple(found)) for key, found in groups.items())


def _candidate(record: Record, variant: Variant, item: Evidence | None, name: str) -> Tried:
    rejections = [r for r in record.rejected if r.variant.id == variant.id]
    state = kind_of(record, item) if item else "failed"
    # What was stopped after a glance has a speed all the same.
    seen = item or next((r.evidence for r in rejections if r.evidence is not None), None)
    return Tried(
        name=name,
        how=f"{variant.target}; {variant.recipe_text}",
        outcome=_outcome(state, rejections),
        state=state,
        speed=_text(seen, "speedup"),
        accuracy=_text(seen, "accuracy"),
        change=_text(seen, "accuracy_change"),
        reason=_reason(state, rejections, item),
        stories=told(record, variant.id),
        making=making(record, variant.id),
    )


def _text(item: Evidence | None, name: str) -> FigureText:
    figure = item.measurement.figure(name) if item else NOT_MEASURED
    return (
        _NONE if figure == NOT_MEASURED or item is None else figure_text(figure, unit_of(name, item.measurement.metric))
    )


def _outcome(state: str, rejections: list[Rejection]) -> str:
    """What became of a candidate, in a few words."""
    known = {"reference": "reference", "picked": "picked", "ladder": "step of the ladder"}
    if state in known:
        return known[state]
    stage = rejections[-1].stage if rejections else "tuning"
    return _STAGES.get(stage, "refused" if state == "refused" else "not taken")


def _reason(state: str, rejections: list[Rejection], item: Evidence | None) -> str:
    """Why it lost, in the words of the record; what was taken needs no excuse."""
    given = [r.reason for r in rejections] or list(item.reasons if item else ())
    if given:
        return " ".join(dict.fromkeys(plainly(reason) for reason in given))
    if state in ("picked", "ladder"):
        return "Measured again on held-out data, and every objective was met there."
    return "Measured against a second process of itself." if state == "reference" else "No reason was recorded."
