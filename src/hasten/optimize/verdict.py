"""The verdict: what the claims on holdout data amount to.

"accepted": the picked variant met every objective. "keep_reference": nothing safe and faster was shown, and the
reference itself is not ruled out by the objectives. "infeasible": the reference misses an objective and nothing
else met it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hasten.spec.evidence import Evidence, Rejection, Verdict
from hasten.spec.measurement import Figure
from hasten.spec.slo import Goal
from hasten.spec.variant import REFERENCE

__all__ = ["Conclusion", "conclude"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Conclusion:
    """Verdict, one sentence for people, and what goes into the bundle."""

    verdict: Verdict
    summary: str
    picked: str
    ladder: tuple[str, ...]
    rejected: tuple[Rejection, ...]


def conclude(reference: Evidence, claimed: Sequence[Evidence], picks: Sequence[Evidence], goal: Goal) -> Conclusion:
    """Conclude from claims in the order of the picks. A failed pick is not replaced: holdout data makes no choice."""
    accepted = [item for item in claimed if item.outcome == "accepted"]
    rejected = tuple(
        Rejection(variant=item.variant, stage="holdout", reason=" ".join(item.reasons), evidence=item)
        for item in claimed
        if item.outcome != "accepted"
    )
    first = picks[0].variant.id if picks else REFERENCE
    top = next((item for item in accepted if item.variant.id == first), None)
    steps = tuple(item.variant.id for item in accepted)
    if top is not None:
        return Conclusion(
            verdict="accepted",
            summary=_speed_sentence(top),
            picked=first,
            ladder=(*steps, REFERENCE),
            rejected=rejected,
        )
    if reference.outcome != "rejected":
        return Conclusion(
            verdict="keep_reference",
            summary=_keep_sentence(picks, claimed),
            picked=REFERENCE,
            ladder=(REFERENCE,),
            rejected=rejected,
        )
    return Conclusion(
        verdict="infeasible",
        summary="Nothing that was tried meets the objectives. The reference: " + " ".join(reference.reasons),
        picked=REFERENCE,
        ladder=(),
        rejected=rejected,
    )


def _speed_sentence(item: Evidence) -> str:
    speed, change = item.measurement.speedup, item.measurement.accuracy_change
    return (
        f"{item.variant.id} is {_times(speed)} as fast as the reference, "
        f"with {item.measurement.metric.name} changed by {_change(change, item.measurement.metric.unit)}, "
        f"shown on {change.n} holdout samples."
    )


def _keep_sentence(picks: Sequence[Evidence], claimed: Sequence[Evidence]) -> str:
    if not picks:
        return "Keep the reference: no candidate was faster and safe on tuning data."
    found = next((item for item in claimed if item.variant.id == picks[0].variant.id), None)
    if found is None:
        return f"Keep the reference: {picks[0].variant.id} failed while its claim was measured."
    return f"Keep the reference: {found.variant.id} did not hold on holdout data. {' '.join(found.reasons)}"


def _times(figure: Figure) -> str:
    if figure.value is None:
        return "an unknown number of times"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.2f} times"
    return f"{figure.value:.2f} times ({figure.low:.2f} to {figure.high:.2f})"


def _change(figure: Figure, unit: str) -> str:
    if figure.value is None or figure.low is None or figure.high is None:
        return "an unknown amount"
    scale, word = (100, " points") if unit == "share" else (1, "")
    return f"{figure.value * scale:+.2f}{word} ({figure.low * scale:+.2f} to {figure.high * scale:+.2f})"
