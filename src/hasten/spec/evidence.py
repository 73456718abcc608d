"""Evidence: what was measured of a variant, held against the objectives, with a verdict and its reasons."""

from __future__ import annotations

from typing import Literal

from hasten.spec.applied import Build
from hasten.spec.environment import Environment
from hasten.spec.measurement import Figure, Measurement, MetricInfo
from hasten.spec.serving import Deployment
from hasten.spec.slo import Goal
from hasten.spec.values import Value
from hasten.spec.variant import Variant

__all__ = [
    "Check",
    "ClassChange",
    "ClassChanges",
    "Evidence",
    "KindTime",
    "OperatorTimes",
    "Outcome",
    "Record",
    "Rejection",
    "Shown",
    "Story",
    "Verdict",
]

Verdict = Literal["accepted", "keep_reference", "infeasible"]
Outcome = Literal["accepted", "rejected", "unproven"]


class Check(Value, frozen=True):
    """One objective held against one figure. `unproven` means that the interval straddles the bound."""

    objective: str
    bound: float
    outcome: Outcome
    reason: str


class Evidence(Value, frozen=True):
    """A measurement, its checks and the outcome: rejected if any check failed, unproven if any is open."""

    variant: Variant
    measurement: Measurement
    checks: tuple[Check, ...]
    outcome: Outcome
    reasons: tuple[str, ...] = ()


class Rejection(Value, frozen=True):
    """A candidate that was not taken, and why, in a sentence that a person understands.

    `stage` tells where it ended: it could not be built, it could not run, its tuning figures lost, its claim failed,
    its turn did not come within the budget, or what was learned from others spoke against trying it.
    """

    variant: Variant
    stage: Literal["build", "run", "tuning", "holdout", "budget", "forecast"]
    reason: str
    evidence: Evidence | None = None


class Record(Value, frozen=True):
    """The whole story of one optimization: what a report shows and a bundle keeps under `evidence/`.

    `tuning` has one entry for each candidate that could be measured, on the data that picks; `holdout` one for
    each that was picked and for the reference, on the data that no step had seen. `claims` of the product come
    from `holdout` only. `builds` tells how each variant's model came about, and which techniques were left out, why.
    `deployments` are the serving defaults of what was picked, with what was predicted for them and found.
    `classes` are the claims class by class, `shown` the samples of `stories`, `operators` where the time of the
    reference and of the picked variant goes: for people to look at, no part of any verdict.
    """

    verdict: Verdict
    summary: str
    goal: Goal
    picked: str
    ladder: tuple[str, ...]
    reference: Evidence
    holdout: tuple[Evidence, ...]
    tuning: tuple[Evidence, ...]
    rejected: tuple[Rejection, ...]
    environment: Environment
    model: dict[str, str | int]
    data: dict[str, str | int]
    seed: int
    elapsed_s: float
    command: str
    stories: tuple[Story, ...] = ()
    builds: tuple[Build, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    classes: tuple[ClassChanges, ...] = ()
    shown: tuple[Shown, ...] = ()
    operators: tuple[OperatorTimes, ...] = ()


class Story(Value, frozen=True):
    """One sample on which a variant's answer differs from the reference's, told on tuning data: for people to
    look at.
    """

    variant: str
    sample: int
    label: str
    reference: str
    answer: str


class Shown(Value, frozen=True):
    """A sample as a person can look at it: in words, or as a small picture (PNG; base64 in JSON)."""

    sample: int
    text: str = ""
    picture: bytes = b""


class ClassChange(Value, frozen=True):
    """Accuracy on the samples of one class, and its change from reference to variant, paired by sample.

    `change` has a reason in place of a value where the class is too small to say anything.
    """

    name: str
    samples: int
    reference: Figure
    accuracy: Figure
    change: Figure


class ClassChanges(Value, frozen=True):
    """One variant's claim class by class, on holdout data: those that changed most first, of `total` classes."""

    variant: str
    metric: MetricInfo
    total: int
    changes: tuple[ClassChange, ...]


class KindTime(Value, frozen=True):
    """All operators of one type, in the engine's own words: how many ran, and microseconds of a prediction."""

    kind: str
    count: int
    time_us: Figure


class OperatorTimes(Value, frozen=True):
    """Where the time of a variant goes, under its engine's profiler: the types that take most first.

    `total_us` is the sum over all operators of a prediction; `reason` says why there is nothing.
    """

    variant: str
    total_us: Figure
    kinds: tuple[KindTime, ...] = ()
    reason: str | None = None
