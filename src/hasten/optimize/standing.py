"""Who leads the search, what that means for the others, and what a finished trial teaches. Pure; tuning data only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from hasten.optimize.forecast import WORTH, Lesson, Prospect, techniques_of, traits_of
from hasten.optimize.pick import accuracy_trouble, why_not
from hasten.optimize.trials import Trial
from hasten.optimize.wish import Wish
from hasten.spec.evidence import Evidence
from hasten.spec.measurement import Figure
from hasten.spec.slo import Goal
from hasten.spec.target import SHAPE_KNOBS, Target
from hasten.spec.values import Value
from hasten.spec.variant import REFERENCE, Variant

__all__ = [
    "Leader", "behind", "is_open_form", "leader_of", "lesson_of", "lesson_of_reference", "stand_by", "unlikely",
]  # fmt: skip

# A glance rules out what is so far below the best: less could be the noise of different rounds.
_FAR_BEHIND = 0.95
# An interval of 95 % is so many standard errors wide.
_WIDTH = 3.92


class Leader(Value, frozen=True):
    """The best safe candidate so far: its speedup and the low end of its interval. The reference has 1."""

    id: str = REFERENCE
    speed: float = 1.0
    low: float = 1.0

    @property
    def to_beat(self) -> float:
        """Its speedup less a standard error: the best of many noisy trials is not as fast as it seems, and what was
        not tried must not be held to its luck ("effective best" of Huang et al. 2006, "Global optimization of
        stochastic black-box systems via sequential kriging meta-models").
        """
        return self.speed * (self.low / self.speed) ** (2 / _WIDTH)


def leader_of(found: Sequence[Evidence], goal: Goal, holdout_samples: int) -> Leader:
    """Return the fastest safe candidate, or the reference where none is faster."""
    safe = [item for item in found if why_not(item, goal, holdout_samples) is None]
    best = max(safe, key=lambda item: item.measurement.speedup.value or 0.0, default=None)
    speed = best.measurement.speedup if best else None
    if best is None or speed is None or speed.value is None or speed.low is None or speed.value <= 1.0:
        return Leader()
    return Leader(id=best.variant.id, speed=speed.value, low=speed.low)


def behind(leader: Leader) -> Callable[[Figure], str | None]:
    """Return what rules a candidate out after a glance: its whole interval lies below that of the leader."""

    def reason(seen: Figure) -> str | None:
        if seen.value is None or seen.high is None or seen.high >= leader.low * _FAR_BEHIND:
            return None
        found = f"{seen.value:.2f} times ({seen.low:.2f} to {seen.high:.2f}) as fast as the reference"
        other = "" if leader.id == REFERENCE else f"; {leader.id} reaches {leader.speed:.2f}"
        return f"Stopped after {seen.n} rounds: {found}{other}."

    return reason


def stand_by(
    ranked: Sequence[Prospect], tried: Sequence[Trial], leader: Target | None, sure: Leader
) -> Prospect | None:
    """Return what deserves a trial before time runs out, because it may stand in; None where nothing does.

    Narrow formats fail on holdout data though they changed nothing before. Where all of the time went to them, the
    reference alone would be left. So the target of the `leader` (None: the reference leads) has its turn in f32,
    whatever is expected of it; and where nothing in f32 is faster than the reference, the best outlook that is worth a
    trial. A leader with graphs for a few lengths has its open form beside it, which rounds otherwise, so that other
    answers are lost (docs/decisions/0032). `sure` is the fastest in f32 so far.
    """
    if leader is None or leader.precision == "f32":
        return None
    in_f32 = [one for one in ranked if one.wish.target.precision == "f32"]
    settled = msgspec.structs.replace(leader.runtime, cascade_below=0.0)
    same = msgspec.structs.replace(leader, precision="f32", runtime=settled)
    if not any(trial.variant.target == same for trial in tried):
        alike = next((one for one in in_f32 if one.wish.target == same), None)
        if alike is not None:
            return replace(alike, worth=max(alike.worth, WORTH))
    if not any(is_open_form(trial.variant.target, leader) for trial in tried):
        alike = next((one for one in ranked if is_open_form(one.wish.target, leader) and not one.wish.wants), None)
        if alike is not None:
            return replace(alike, worth=max(alike.worth, WORTH))
    return next((one for one in in_f32 if one.worth >= WORTH), None) if sure.id == REFERENCE else None


def is_open_form(target: Target, of: Target | None) -> bool:
    """Whether a target is another's without its graphs for a few lengths, and with nothing turned."""
    if of is None or not of.runtime.lengths or target.runtime.lengths or target.runtime.turned() - SHAPE_KNOBS:
        return False
    return (target.engine, target.precision, target.threads) == (of.engine, of.precision, of.threads)


def unlikely(prospect: Prospect, leader: Leader) -> str:
    """Why a candidate is not worth its trial."""
    words = f"{prospect.gain:.2f} times ({prospect.low:.2f} to {prospect.high:.2f}) as fast as the reference"
    safe = f" with a chance of {prospect.safe:.0%} that its answers would do" if prospect.safe < 0.9 else ""
    other = "the reference itself" if leader.id == REFERENCE else f"{leader.id} with {leader.speed:.2f}"
    return f"Not worth a trial: what was tried lets expect {words}{safe}, against {other}."


def lesson_of(wish: Wish, trial: Trial, goal: Goal, holdout_samples: int) -> Lesson:
    """What the forecast learns of a trial, whichever way it ended."""
    item = trial.evidence or (trial.rejection.evidence if trial.rejection else None)
    gain, spread = _logs(item.measurement.speedup) if item else (None, None)
    return Lesson(
        traits=traits_of(wish),
        techniques=techniques_of(wish),
        precision=wish.target.precision,
        log_gain=gain,
        spread=spread,
        safe=_was_safe(trial.evidence, goal, holdout_samples),
        seconds=trial.seconds,
    )


def lesson_of_reference(reference: Variant) -> Lesson:
    """What is known without a trial: the reference is as fast as itself, and its answers do. So its engine in its
    precision is judged by it, and not by what other engines make of that precision.
    """
    wish = Wish(id=reference.id, target=reference.target)
    precision = reference.target.precision
    return Lesson(traits=traits_of(wish), techniques=(), precision=precision, log_gain=0.0, spread=0.0, safe=True)


def _logs(speed: Figure) -> tuple[float | None, float | None]:
    if not speed.value or not speed.low or not speed.high:
        return None, None
    return math.log(speed.value), (math.log(speed.high) - math.log(speed.low)) / _WIDTH


def _was_safe(item: Evidence | None, goal: Goal, holdout_samples: int) -> bool | None:
    if item is None or item.measurement.accuracy_change.value is None:
        return None
    return accuracy_trouble(item, goal, holdout_samples) is None
