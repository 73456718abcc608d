"""From candidates to claims: a run-off and the picks on tuning data, then the seal is broken, and each pick is measured
anew on holdout data.

The order is the honesty. The picks and their order are fixed before the holdout split is opened, and speed is measured
again too, so that the luckiest of many noisy timings is not the claim. Where the claim of the first pick fails, the
next that passes stands in. All are held to longer intervals than one would be, so that several claims have hardly more
chances to pass by luck (`hasten.verify.shares`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from hasten.data.dataset import Subset
from hasten.data.split import Splits
from hasten.errors import EngineError
from hasten.measure.base import Arm, Plan
from hasten.measure.contention import Watch
from hasten.measure.latency import race
from hasten.optimize.build import Builder
from hasten.optimize.effort import ClaimEffort, Effort, claim_effort, time_for_claims
from hasten.optimize.pick import finalists, losers, pick
from hasten.optimize.trial import Bench, Loader, try_variant
from hasten.optimize.trials import Trial, TrialLog
from hasten.optimize.tuned import line
from hasten.spec.evidence import Evidence, Rejection
from hasten.spec.progress import Listener, Progress
from hasten.spec.slo import Goal
from hasten.spec.variant import REFERENCE, Variant
from hasten.verify.shares import settled

__all__ = ["ClaimStage", "Claimed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """What was picked, in order, the claims (the reference against itself first), what they show at their shares of the
    error, and why everything else is no claim.
    """

    picks: Sequence[Evidence]
    trials: Sequence[Trial]
    evidence: Sequence[Evidence]
    rejected: Sequence[Rejection]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClaimStage:
    """What the stage needs. `bench` measures with a plan on holdout data, `watch` is for tuning data, `gone_s()` is the
    time since the job began. `counts_answers` says that the metric is a share of right answers.
    """

    arm: Arm
    bench: Callable[[Plan, Subset], Bench]
    splits: Splits
    effort: Effort
    builder: Builder
    log: TrialLog
    loader: Loader
    watch: Watch
    goal: Goal
    budget_s: float
    gone_s: Callable[[], float]
    seed: int
    counts_answers: bool
    listener: Listener

    def run(self, reference: Variant, measured: Sequence[Evidence]) -> Claimed:
        """Pick from what was measured on tuning data, and claim as many of the picks as time allows."""
        candidates = [item for item in measured if item.variant.id != REFERENCE]
        samples = self.effort.holdout_samples
        best = pick(candidates, self.goal, samples, self._run_off(finalists(candidates, self.goal, samples)))
        effort = self._planned(best)
        picks, late = best[: effort.picks], best[effort.picks :]
        trials = self._claim(reference, [item.variant for item in picks], effort)
        shown = [trial.evidence for trial in trials if trial.evidence is not None]
        return Claimed(
            picks=picks,
            trials=trials,
            evidence=settled(shown, effort.sharing, self.goal.slo.accuracy_drop_max),
            rejected=[
                *(trial.rejection for trial in trials if trial.rejection is not None),
                *losers(measured, best, self.goal, samples),
                *(self._unclaimed(item, len(picks)) for item in late),
            ],
        )

    def _run_off(self, best: Sequence[Evidence]) -> dict[str, float]:
        """Race the finalists in the same rounds: trials took place at different moments of a machine that changes."""
        if len(best) < 2:
            return {}
        kept = self.log.get("run-off", dict[str, float])
        if kept is not None:
            return kept
        self._say("run-off: " + ", ".join(item.variant.id for item in best))
        try:
            with ExitStack() as stack:
                arms = {
                    item.variant.id: stack.enter_context(
                        self.loader(self.builder.build(item.variant), item.variant.target)
                    )
                    for item in best
                }
                plan = self.effort.run_off([_gain(item) for item in best], self.budget_s)
                figures = race(self.arm, arms, self.splits.tuning, plan, self.watch)
        except EngineError as error:
            # The figures of the trials stand; they only were not taken in the same rounds.
            self.listener(Progress(stage="run-off", note=f"run-off given up: {error.message}"))
            return {}
        speeds = {name: figure.value or 0.0 for name, figure in figures.items()}
        self.log.put("run-off", speeds)
        order = sorted(speeds, key=lambda name: -speeds[name])
        words = ", ".join(f"{name} {speeds[name]:.2f}×" for name in order)
        self.listener(Progress(stage="run-off", note=f"run-off: {words}"))
        return speeds

    def _planned(self, picks: Sequence[Evidence]) -> ClaimEffort:
        """How much is measured for the claims; a resumed run goes on as it was planned."""
        kept = self.log.get("claims", ClaimEffort)
        if kept is None:
            kept = claim_effort(
                self.effort.seconds,
                [_gain(item) for item in picks],
                time_for_claims(self.budget_s, self.gone_s(), self.effort.claims_s),
                self.goal.slo,
                len(self.splits.holdout),
                counts_answers=self.counts_answers,
            )
            self.log.put("claims", kept)
        return kept

    def _claim(self, reference: Variant, variants: Sequence[Variant], effort: ClaimEffort) -> list[Trial]:
        """Open the holdout split for the picks and measure them, and the reference against itself, anew."""
        ids = [variant.id for variant in variants]
        self._say(f"picked on tuning data: {', '.join(ids) or 'nothing'}; opening the holdout data")
        # The split has shuffled them, by group: the first are as good as any.
        data = self.splits.holdout.open(ids).first(effort.samples)
        trials: list[Trial] = []
        for number, variant in enumerate((reference, *variants)):
            self._say(f"claim {number + 1} of {len(variants) + 1}: {variant.id}", number, len(variants) + 1)
            trials.append(self._tried(variant, self.bench(effort.plan(self.seed, number - 1), data)))
        return trials

    def _tried(self, variant: Variant, bench: Bench) -> Trial:
        """A finished claim from the log, or a new one that is put there."""
        key = f"holdout/{variant.id}"
        trial = self.log.get(key, Trial)
        if trial is None:
            trial = try_variant(bench, variant, self.builder.build)
            self.log.put(key, trial)
        self.listener(Progress(stage=key, note=line(trial)))
        return trial

    def _unclaimed(self, item: Evidence, claimed: int) -> Rejection:
        reason = f"The budget of {self.budget_s / 60:.3g} minutes left time for the claims of {claimed} before it."
        return Rejection(variant=item.variant, stage="budget", reason=reason, evidence=item)

    def _say(self, stage: str, done: float = 0, total: float = 0) -> None:
        self.listener(Progress(stage=stage, done=done, total=total))


def _gain(item: Evidence) -> float:
    return item.measurement.speedup.value or 1.0
