"""What the tuning stage has found so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hasten.optimize.trials import Trial
from hasten.optimize.wish import Wish
from hasten.spec.applied import Build
from hasten.spec.evidence import Evidence, Rejection
from hasten.spec.variant import REFERENCE, Variant

__all__ = ["Tuned", "line", "refused", "speed_of"]


@dataclass(slots=True)
class Tuned:
    """One trial for each candidate, and how each model was built."""

    trials: list[Trial] = field(default_factory=list[Trial])
    builds: dict[str, Build] = field(default_factory=dict[str, Build])
    wishes: dict[str, Wish] = field(default_factory=dict[str, Wish])

    def evidence(self) -> list[Evidence]:
        """All measured candidates, without the reference."""
        found = [trial.evidence for trial in self.trials if trial.evidence is not None]
        return [item for item in found if item.variant.id != REFERENCE]

    def ran(self) -> int:
        """How many candidates ran at all."""
        ran = [t for t in self.trials if t.evidence or (t.rejection and t.rejection.evidence)]
        return sum(trial.variant.id != REFERENCE for trial in ran)


def speed_of(trial: Trial) -> float | None:
    """How many times as fast as the reference it was; None where that was not measured."""
    return None if trial.evidence is None else trial.evidence.measurement.speedup.value


def refused(variant: Variant, stage: Literal["build", "budget", "forecast"], reason: str) -> Trial:
    """The trial of a candidate that did not run."""
    return Trial(variant=variant, rejection=Rejection(variant=variant, stage=stage, reason=reason))


def line(trial: Trial) -> str:
    """One finished trial in one line."""
    if trial.evidence is None:
        assert trial.rejection is not None
        return f"{trial.variant.id}: {trial.rejection.reason}"
    measured = trial.evidence.measurement
    speed, change = measured.speedup, measured.accuracy_change
    speed_text = f"{speed.value:.2f}×" if speed.value is not None else "speed unknown"
    unit = "points" if measured.metric.unit == "share" else measured.metric.unit
    scale = 100 if measured.metric.unit == "share" else 1
    change_text = f"{change.value * scale:+.2f} {unit}" if change.value is not None else "accuracy unknown"
    return f"{trial.variant.id}: {speed_text}, {measured.metric.name} {change_text}"
