"""Pick on tuning data: which variants deserve a claim, in which order.

A variant is promising if no check rejects it and, at the size of the holdout split, its accuracy bound is likely to be
proven. The best of each kind (engine, precision, recipe) goes on, at most three, with one in f32 among them; the first
is the pick, the others are further steps of the ladder, and stand in where its claim fails. Nothing here sees holdout
data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hasten.optimize.cascade import is_cascade, plain_of
from hasten.optimize.trials import fingerprint
from hasten.spec.evidence import Evidence, Rejection
from hasten.spec.slo import Goal
from hasten.spec.target import SHAPE_KNOBS
from hasten.spec.variant import REFERENCE
from hasten.stats.change import error_at, is_silent, reach_at
from hasten.verify.judge import GAIN

__all__ = ["MOST", "accuracy_trouble", "by_speed", "finalists", "gain_of", "losers", "pick", "why_not"]

MOST = 3
FINALISTS = 4
# A variant must be so many times as fast to go before one whose accuracy is surer: a first pick that fails on holdout
# data leaves the place to the next, whose chance is no better.
_DOUBT = 1.25


def finalists(candidates: Sequence[Evidence], goal: Goal, holdout_samples: int) -> list[Evidence]:
    """Return the promising variants whose speed could still be the best, the most promising first: those for the
    run-off, at most four. The best of each kind that may be picked is among them, however many knobs of one kind are
    faster: who did not race is picked after all who did.
    """
    promising = [item for item in candidates if why_not(item, goal, holdout_samples) is None]
    ranked = sorted(promising, key=lambda item: -gain_of(item, goal) / _doubt(item, goal, holdout_samples))
    leaders = [item.variant.id for item in pick(candidates, goal, holdout_samples)]
    others = [item.variant.id for item in ranked if item.variant.id not in leaders]
    racing = [*leaders, *others][:FINALISTS]
    return [item for item in ranked if item.variant.id in racing] if by_speed(goal) else []


def pick(
    candidates: Sequence[Evidence], goal: Goal, holdout_samples: int, raced: Mapping[str, float] | None = None
) -> list[Evidence]:
    """Return the variants to claim, best first; empty where nothing is promising.

    `raced` are speeds from the run-off, which rank before all others: they were measured in the same rounds.
    """
    speeds = raced or {}
    promising = [item for item in candidates if why_not(item, goal, holdout_samples) is None]
    cascades = {_kind(item, cascades=True) for item in promising if is_cascade(item.variant)}

    def rank(item: Evidence) -> tuple[float, float]:
        # A knob must earn its place: turned ones compete with a handicap, or noise would choose among equals.
        turned = item.variant.target.runtime.turned() - SHAPE_KNOBS
        handicap = GAIN if turned or not item.variant.target.pin else 1.0
        # A cascade answers as its own narrower format does, and its closest calls as the reference: it is surer.
        unsure = not is_cascade(item.variant) and _kind(item, cascades=True) in cascades
        handicap *= (_DOUBT if unsure else 1.0) * _doubt(item, goal, holdout_samples)
        gain = gain_of(item, goal)
        return -speeds.get(item.variant.id, 0.0) / handicap, -(gain / handicap if gain > 0 else gain * handicap)

    ranked = sorted(promising, key=rank)
    best: dict[object, Evidence] = {}
    for item in ranked:
        best.setdefault(_kind(item, cascades=is_cascade(item.variant)), item)
    picks = list(best.values())[:MOST]
    sure = next((item for item in best.values() if item.variant.target.precision == "f32"), None)
    if sure is not None and sure not in picks:
        # Narrow formats lose answers together: where the claims of two fail, a third has little to hope for.
        picks[-1] = sure
    if len(picks) < MOST:
        # Whose graph has other shapes rounds otherwise: where a few answers of the one are unlucky, those of the other
        # may not be.
        alike = next((item for item in ranked if _is_other_graph(item, picks[0])), None)
        picks = sorted([*picks, alike], key=rank) if alike else picks
    return picks


def _is_other_graph(item: Evidence, first: Evidence) -> bool:
    """Whether it is the same kind of variant with graphs of other shapes."""
    cascades = is_cascade(item.variant)
    if _kind(item, cascades=cascades) != _kind(first, cascades=is_cascade(first.variant)):
        return False
    ours, theirs = item.variant.target.runtime, first.variant.target.runtime
    return (ours.lengths, ours.single_row) != (theirs.lengths, theirs.single_row)


def _kind(item: Evidence, *, cascades: bool) -> tuple[str, str, str, bool]:
    """What competes for one place among the picks: threads and other knobs are no difference in kind."""
    target = item.variant.target
    return target.engine, target.precision, fingerprint(plain_of(item.variant.recipe)), cascades


def losers(tuned: Sequence[Evidence], picks: Sequence[Evidence], goal: Goal, holdout_samples: int) -> list[Rejection]:
    """Why each measured candidate that was not picked was not."""
    taken = {item.variant.id for item in picks}
    kinds = {(p.variant.target.engine, p.variant.target.precision): p.variant.id for p in picks}
    lost: list[Rejection] = []
    for item in tuned:
        if item.variant.id in taken or item.variant.id == REFERENCE:
            continue
        kind = (item.variant.target.engine, item.variant.target.precision)
        better = kinds.get(kind, picks[0].variant.id if picks else "")
        reason = why_not(item, goal, holdout_samples) or f"{better} does the same job better."
        lost.append(Rejection(variant=item.variant, stage="tuning", reason=reason, evidence=item))
    return lost


def by_speed(goal: Goal) -> bool:
    """Whether speed ranks variants: for latency, and for cost, since the machine's price is the same for all."""
    return goal.objective.minimize not in ("memory_mb", "energy_per_prediction_j")


def gain_of(item: Evidence, goal: Goal) -> float:
    """How good a variant is in what the user minimizes: larger is better, 1 is the reference for speed.

    Speed and energy are ranked by the paired ratio, because absolute figures of different trials were taken at
    different moments.
    """
    if goal.objective.minimize == "energy_per_prediction_j":
        return item.measurement.energy_gain.value or 0.0
    if goal.objective.minimize == "memory_mb":
        return -(item.measurement.memory_peak_mb.value or math.inf)
    return item.measurement.speedup.value or 0.0


def why_not(item: Evidence, goal: Goal, holdout_samples: int) -> str | None:
    """Say why a variant is not promising, or return None."""
    rejected = [check.reason for check in item.checks if check.outcome == "rejected"]
    if rejected:
        return " ".join(rejected)
    if goal.objective.minimize != "memory_mb" and gain_of(item, goal) < GAIN:
        what = "" if by_speed(goal) else " in energy"
        return f"It gains less than {GAIN - 1:.0%}{what} over the reference."
    return _unlikely(item, goal.slo.accuracy_drop_max, holdout_samples)


def accuracy_trouble(item: Evidence, goal: Goal, holdout_samples: int, *, errors: float = 0.0) -> str | None:
    """Say why a variant's accuracy would not do, whatever its speed, or return None. It is taken to be worse than it
    looks by `errors` standard errors, and a gain to be luck then: whoever tries many and keeps the best has been
    flattered.
    """
    rejected = [c.reason for c in item.checks if c.objective == "accuracy_drop_max" and c.outcome == "rejected"]
    return " ".join(rejected) or _unlikely(item, goal.slo.accuracy_drop_max, holdout_samples, errors)


def _doubt(item: Evidence, goal: Goal, holdout_samples: int) -> float:
    return _DOUBT if accuracy_trouble(item, goal, holdout_samples, errors=1.0) else 1.0


def _unlikely(item: Evidence, drop_max: float, holdout_samples: int, errors: float = 0.0) -> str | None:
    """Whether the accuracy bound would stay unproven on holdout, whose interval is shorter as it has more samples."""
    change, metric = item.measurement.accuracy_change, item.measurement.metric
    if change.value is None or change.low is None or change.high is None:
        return f"Its accuracy is unknown: {change.reason}."
    if is_silent(change):
        return None
    sides = change.value - change.low, change.high - change.value
    drop, reach = (-change.value, sides[0]) if metric.higher_is_better else (change.value, sides[1])
    if errors and drop < 0:
        # Answers that changed for the better might as well have changed for the worse.
        drop, reach = 0.0, max(sides)
    expected = drop + errors * error_at(change, reach) + reach_at(change, reach, max(holdout_samples, 1))
    if expected <= drop_max:
        return None
    reasons = [check.reason for check in item.checks if check.objective == "accuracy_drop_max"]
    return f"{' '.join(reasons)} The {holdout_samples} holdout samples would hardly prove it."
