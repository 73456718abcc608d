"""What one optimization is asked for, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hasten.clock import Clock, MonotonicClock
from hasten.data.dataset import Dataset
from hasten.engine.base import Probe
from hasten.measure.contention import cores_given
from hasten.optimize.build import Apply
from hasten.optimize.deploy import Deployer
from hasten.optimize.trial import Loader, load_arm
from hasten.spec.evidence import Record
from hasten.spec.progress import Listener, ignore
from hasten.spec.slo import Goal
from hasten.spec.variant import Step
from hasten.transform.isolate import apply_isolated

__all__ = ["BUDGET_S", "Job", "Outcome"]

BUDGET_S = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Everything that one optimization is asked for. `render` makes the report page; `command` is how to run it
    again. `prepare` changes the model's interface first, for reference and candidates alike. `history` is the file
    with what earlier runs taught (`hasten.optimize.history`); `deployer` chooses serving defaults and rehearses them.
    `seed` draws orders and arrivals; `split_seed` deals the samples into splits (docs/decisions/0029). `exhaustive`
    measures every candidate in full; the budget then says only how much each is measured.
    """

    model: Path
    data: Dataset
    goal: Goal
    out: Path
    name: str
    render: Callable[[Record], str]
    prepare: tuple[Step, ...] = ()
    seed: int = 0
    split_seed: int = 0
    budget_s: float = BUDGET_S
    exhaustive: bool = False
    resume: bool = False
    overwrite: bool = False
    command: str = ""
    listener: Listener = ignore
    loader: Loader = load_arm
    apply: Apply = apply_isolated
    probe: Callable[[], list[Probe]] | None = None
    history: Path | None = None
    deployer: Deployer | None = None
    clock: Clock = field(default_factory=MonotonicClock)
    cores_given: Callable[[], float] = cores_given


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The record, and the bundle folder; an infeasible goal has a report but no bundle."""

    record: Record
    bundle: Path | None
    report: Path
