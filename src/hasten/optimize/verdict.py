"""The verdict: what the claims on holdout data amount to.

"accepted": the picked variant, or a spare in its place, met every objective. "keep_reference": nothing safe and faster
was shown, and the reference itself is not ruled out by the objectives. "infeasible": the reference misses an objective
and nothing else met it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hasten.spec.evidence import Evidence, Rejection, Verdict
from hasten.spec.measurement import Figure
from hasten.spec.slo import Goal
from hasten.spec.variant import REFERENCE
from hasten.verify.judge import GAIN, may_be_picked, why_not_picked

__all__ = ["Conclusion", "conclude"]

_ACCURACY = {"accuracy_drop_max"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Conclusion:
    """Verdict, one sentence for people, and what goes into the bundle."""

    verdict: Verdict
    summary: str
    picked: str
    ladder: tuple[str, ...]
    rejected: tuple[Rejection, ...]


def conclude(
    reference: Evidence,
    claimed: Sequence[Evidence],
    picks: Sequence[Evidence],
    goal: Goal,
    tuned: Sequence[Evidence] = (),
) -> Conclusion:
    """Conclude from claims in the order of the picks, which was fixed before the seal was broken. Where the first
    fails, the next that passes stands in (`hasten.verify.judge.may_be_picked`); which is faster on holdout data makes
    no difference. `tuned` are the trials, for a word on what came closest.
    """
    accepted = [item for item in claimed if item.outcome == "accepted"]
    first = picks[0].variant.id if picks else REFERENCE
    order = [item.variant.id for item in picks]
    ranked = sorted(accepted, key=lambda item: order.index(item.variant.id))
    top = next((item for item in ranked if may_be_picked(item, goal)), None)
    if top is not None:
        steps = [top, *(item for item in ranked if item is not top)]
        stands_in = "" if top.variant.id == first else _stands_in(first, claimed, goal)
        return Conclusion(
            verdict="accepted",
            summary=_gain_sentence(top, goal) + stands_in,
            picked=top.variant.id,
            ladder=(*(item.variant.id for item in steps), REFERENCE),
            rejected=_rejected(claimed, accepted, goal),
        )
    if reference.outcome != "rejected":
        return Conclusion(
            verdict="keep_reference",
            summary=_keep_sentence(picks, claimed, goal, tuned),
            picked=REFERENCE,
            ladder=(REFERENCE,),
            rejected=_rejected(claimed, (), goal),
        )
    return Conclusion(
        verdict="infeasible",
        summary=_infeasible_sentence(reference, claimed, goal, tuned),
        picked=REFERENCE,
        ladder=(),
        rejected=_rejected(claimed, (), goal),
    )


def _rejected(claimed: Sequence[Evidence], kept: Sequence[Evidence], goal: Goal) -> tuple[Rejection, ...]:
    return tuple(
        Rejection(variant=item.variant, stage="holdout", reason=why_not_picked(item, goal), evidence=item)
        for item in claimed
        if item not in kept
    )


def _gain_sentence(item: Evidence, goal: Goal) -> str:
    speed, change = item.measurement.speedup, item.measurement.accuracy_change
    energy = ""
    if goal.objective.minimize == "energy_per_prediction_j":
        energy = f"makes the reference's energy last {_times(item.measurement.energy_gain)} as long, and "
    return (
        f"{item.variant.id} {energy}is {_times(speed)} as fast as the reference, "
        f"with {item.measurement.metric.name} changed by {_change(change, item.measurement.metric.unit)}, "
        f"shown on {change.n} holdout samples."
    )


def _stands_in(first: str, claimed: Sequence[Evidence], goal: Goal) -> str:
    """Why a spare is served in place of the first pick."""
    failed = next((item for item in claimed if item.variant.id == first), None)
    reasons = why_not_picked(failed, goal) if failed else "It failed while its claim was measured."
    return f" It stands in for {first}, whose claim failed: {reasons}"


def _keep_sentence(
    picks: Sequence[Evidence], claimed: Sequence[Evidence], goal: Goal, tuned: Sequence[Evidence]
) -> str:
    if not picks:
        return "Keep the reference: no candidate was faster and safe on tuning data." + _fastest_unsafe(goal, tuned)
    found = next((item for item in claimed if item.variant.id == picks[0].variant.id), None)
    if found is None:
        return f"Keep the reference: {picks[0].variant.id} failed while its claim was measured."
    return f"Keep the reference: {found.variant.id} did not hold on holdout data. {why_not_picked(found, goal)}"


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


def _infeasible_sentence(
    reference: Evidence, claimed: Sequence[Evidence], goal: Goal, tuned: Sequence[Evidence]
) -> str:
    """Which objectives bind, how close the best came to each, and what a larger drop of accuracy would buy."""
    words = "Nothing that was tried meets the objectives. The reference: " + " ".join(reference.reasons)
    everything = [*claimed, *tuned]
    for check in reference.checks:
        if check.outcome == "rejected":
            words += _closest(check.objective, check.bound, everything)
    return words + _fastest_unsafe(goal, tuned)


def _closest(objective: str, bound: float, found: Sequence[Evidence]) -> str:
    """The best figure for a missed objective among all candidates, as a factor of the bound."""
    name = "memory_peak_mb" if objective == "memory_max_mb" else objective
    known = [(item, item.measurement.figure(name).value) for item in found if item.variant.id != REFERENCE]
    values = [(value, item.variant.id) for item, value in known if value is not None]
    if not values:
        return ""
    higher = objective == "throughput_rps"
    value, id_ = max(values) if higher else min(values)
    factor = bound / value if higher else value / bound
    far = f"{factor:.2g} times the bound" if factor > 1 else "within the bound, and fails another objective"
    return f" Closest to {objective} {bound:g} came {id_} with {value:.4g}: {far}."


def _fastest_unsafe(goal: Goal, tuned: Sequence[Evidence]) -> str:
    """What a larger drop of accuracy would buy: the fastest candidate whose accuracy alone stood in its way."""
    blocked = [item for item in tuned if _only_accuracy_blocks(item)]
    best = max(blocked, key=lambda item: item.measurement.speedup.value or 0.0, default=None)
    if best is None or (best.measurement.speedup.value or 0.0) < GAIN:
        return ""
    change, metric = best.measurement.accuracy_change, best.measurement.metric
    ends = [-value if metric.higher_is_better else value for value in (change.low, change.high) if value is not None]
    unit = " points" if metric.unit == "share" else ""
    scale = 100 if metric.unit == "share" else 1
    return (
        f" {best.variant.id} would be {_times(best.measurement.speedup)} as fast; {metric.name} changed by "
        f"{_change(change, metric.unit)} on {change.n} tuning samples, so accuracy_drop_max would have to be about "
        f"{max(ends) * scale:.2g}{unit} instead of {goal.slo.accuracy_drop_max * scale:.2g}{unit}, or the data larger."
    )


def _only_accuracy_blocks(item: Evidence) -> bool:
    open_ones = {check.objective for check in item.checks if check.outcome != "accepted"}
    return item.variant.id != REFERENCE and item.measurement.accuracy_change.low is not None and open_ones <= _ACCURACY
