"""How a candidate's model was made: each technique with what it changed, the nodes that it left alone, and the
techniques that were left out, each with its reason. Pure; `hasten.report.tried` calls it.
"""

from __future__ import annotations

from collections.abc import Iterator

from hasten.report.words import clean
from hasten.spec.applied import Applied, Build
from hasten.spec.evidence import Record

__all__ = ["making"]

_FEW = 4


def making(record: Record, variant: str) -> tuple[str, ...]:
    """Return sentences on how the model of `variant` came about; empty for the model as it was trained."""
    build = next((item for item in record.builds if item.variant == variant), None)
    return tuple(clean(text) for text in _sentences(build)) if build else ()


def _sentences(build: Build) -> Iterator[str]:
    for step in build.applied:
        yield f"{step.transform}: {_changed(step)}"
        yield from (f"{step.transform}: {note}" for note in step.notes)
        yield from _alone(step)
    for item in build.left_out:
        yield f"left out: {_after_name(item.transform, item.reason)}"


def _changed(step: Applied) -> str:
    """Which operators came and went, the largest changes first, and how far the answers moved."""
    before, after = step.operators_before, step.operators_after
    moves = {name: after.get(name, 0) - before.get(name, 0) for name in {*before, *after}}
    changed = sorted((name for name in moves if moves[name]), key=lambda name: (-abs(moves[name]), name))
    shown = ", ".join(f"{name} {before.get(name, 0)} → {after.get(name, 0)}" for name in changed[:_FEW])
    more = f" and {len(changed) - _FEW} more kinds" if len(changed) > _FEW else ""
    what = f"{shown}{more}" if shown else "the same operators"
    moved = f"; answers moved by {step.error:.2g} of their norm" if step.error else ""
    return f"{what}{moved}."


def _alone(step: Applied) -> Iterator[str]:
    """Nodes that were left alone, joined where they share a reason."""
    by_reason: dict[str, list[str]] = {}
    for item in step.skipped:
        by_reason.setdefault(item.reason, []).append(item.site)
    for reason, sites in by_reason.items():
        more = f" and {len(sites) - _FEW} more" if len(sites) > _FEW else ""
        yield f"{step.transform} left alone {', '.join(sites[:_FEW])}{more}: {reason}"


def _after_name(transform: str, reason: str) -> str:
    return reason if reason.startswith(transform) else f"{transform} {reason}"
