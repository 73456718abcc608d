"""Try one variant: build it, load it in a process of its own, measure it beside the reference, hold it to the
objectives.

Whatever goes wrong with a candidate, a crash of its engine included, ends as a rejection with a reason.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from hasten.clock import Clock, MonotonicClock
from hasten.data.dataset import Subset
from hasten.engine.isolate import load_isolated
from hasten.errors import EngineError, HastenError, StorageError
from hasten.measure.base import AnswerBook, Arm, Pair, Plan, meters
from hasten.measure.classes import class_changes
from hasten.measure.contention import Watch
from hasten.measure.cost import costs
from hasten.measure.latency import glance
from hasten.optimize.stories import stories
from hasten.optimize.trials import Trial
from hasten.spec.evidence import ClassChanges, Evidence, Rejection, Story
from hasten.spec.measurement import Figure, Measurement, Split
from hasten.spec.progress import Listener, ignore
from hasten.spec.slo import Goal
from hasten.spec.target import Target
from hasten.spec.variant import REFERENCE, Variant
from hasten.verify.judge import judge

__all__ = ["Bench", "Loader", "accuracy_of", "load_arm", "pair_of", "try_variant"]


class Loader(Protocol):
    """Loads a model for a target in a process of its own. Tests put a fake in its place."""

    def __call__(self, model: Path, target: Target) -> AbstractContextManager[Arm]:
        """Return an arm that closes at the end of a `with`."""
        ...


def load_arm(model: Path, target: Target) -> AbstractContextManager[Arm]:
    """The real loader."""
    return load_isolated(model, target)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What trials share: the reference, the samples of one split, the plan, and the book of reference answers."""

    split: Split
    data: Subset
    reference: Arm
    plan: Plan
    goal: Goal
    watch: Watch
    loader: Loader = load_arm
    listener: Listener = ignore
    book: AnswerBook = field(default_factory=AnswerBook)
    clock: Clock = field(default_factory=MonotonicClock)
    # Given the speedup of a glance, says why the candidate is not worth more time, or None.
    behind: Callable[[Figure], str | None] | None = None


def try_variant(bench: Bench, variant: Variant, build: Callable[[Variant], Path]) -> Trial:
    """Return the trial of `variant`. Never raises for what a candidate does; a full disk is not its fault and
    does raise.
    """
    started = bench.clock.now()
    trial = _tried(bench, variant, build)
    return msgspec.structs.replace(trial, seconds=bench.clock.now() - started)


def accuracy_of(bench: Bench, variant: Variant, build: Callable[[Variant], Path]) -> Evidence | None:
    """Return evidence on accuracy alone, without a clock; None where the variant does not build or run."""
    try:
        model = build(variant)
        with bench.loader(model, variant.target) as arm:
            figures = meters.get("accuracy").measure(pair_of(bench, variant, model, arm))
    except StorageError:
        raise
    except HastenError:
        return None
    measurement = Measurement(split=bench.split, metric=bench.data.dataset.metric.info).with_figures(figures)
    return judge(variant, measurement, bench.goal)


def _tried(bench: Bench, variant: Variant, build: Callable[[Variant], Path]) -> Trial:
    try:
        model = build(variant)
    except StorageError:
        raise
    except HastenError as error:
        return _rejected(variant, "build", error.message)
    try:
        with bench.loader(model, variant.target) as arm:
            pair = pair_of(bench, variant, model, arm)
            lost = _lost(bench, variant, pair)
            if lost is not None:
                return Trial(variant=variant, rejection=lost)
            evidence = _measure(bench, variant, pair)
    except EngineError as error:
        return _rejected(variant, "run", error.message)
    told, classes = _stories(bench, variant), _classes(bench, variant)
    return Trial(variant=variant, evidence=evidence, stories=told, classes=classes)


def pair_of(bench: Bench, variant: Variant, model: Path, arm: Arm) -> Pair:
    """The loaded variant beside the reference, with what trials share."""
    return Pair(
        reference=bench.reference,
        candidate=arm,
        fresh=lambda: bench.loader(model, variant.target),
        data=bench.data,
        book=bench.book,
        plan=bench.plan,
        watch=bench.watch,
        prices=bench.goal.prices,
        listener=bench.listener,
        label=variant.id,
        target=variant.target,
        itself=variant.id == REFERENCE,
    )


def _measure(bench: Bench, variant: Variant, pair: Pair) -> Evidence:
    figures: dict[str, Figure] = {}
    for name in meters.names():
        figures |= meters.get(name).measure(pair)
    figures |= costs(figures, bench.data.dataset.metrics, bench.goal.prices)
    measurement = Measurement(split=bench.split, metric=bench.data.dataset.metric.info).with_figures(figures)
    return judge(variant, measurement, bench.goal, is_reference=variant.id == REFERENCE)


def _lost(bench: Bench, variant: Variant, pair: Pair) -> Rejection | None:
    """The rejection of a candidate that a few rounds rule out, with the speedup that they showed and nothing else."""
    if bench.behind is None:
        return None
    speedup = glance(pair)
    reason = bench.behind(speedup)
    if reason is None:
        return None
    measurement = Measurement(split=bench.split, metric=bench.data.dataset.metric.info, speedup=speedup)
    evidence = Evidence(variant=variant, measurement=measurement, checks=(), outcome="rejected", reasons=(reason,))
    return Rejection(variant=variant, stage="tuning", reason=reason, evidence=evidence)


def _rejected(variant: Variant, stage: str, reason: str) -> Trial:
    return Trial(
        variant=variant,
        rejection=Rejection(variant=variant, stage="build" if stage == "build" else "run", reason=reason),
    )


def _classes(bench: Bench, variant: Variant) -> ClassChanges | None:
    """The claim class by class; a trial that picks has no need of it."""
    given = bench.book.given.get(variant.id)
    if bench.split != "holdout" or variant.id == REFERENCE or given is None:
        return None
    return class_changes(variant.id, bench.data.dataset, bench.data.indices, bench.book.answers, given)


def _stories(bench: Bench, variant: Variant) -> tuple[Story, ...]:
    given = bench.book.given.get(variant.id, {})
    if bench.split == "holdout":
        return ()
    return tuple(stories(variant.id, bench.data.dataset, bench.book.answers, given))
