"""Evidence: what was measured of a variant, held against the objectives, with a verdict and its reasons."""

from __future__ import annotations

from typing import Literal

from hasten.spec.applied import Build
from hasten.spec.environment import Environment
from hasten.spec.measurement import Measurement
from hasten.spec.serving import Deployment
from hasten.spec.slo import Goal
from hasten.spec.values import Value
from hasten.spec.variant import Variant

__all__ = ["Check", "Evidence", "Outcome", "Record", "Rejection", "Verdict"]

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


class Story(Value, frozen=True):
    """One sample on which a variant's answer differs from the reference's, told on tuning data: for people to
    look at.
    """

    variant: str
    sample: int
    label: str
    reference: str
    answer: str
