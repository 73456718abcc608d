"""Second chances for candidates of lower precision that were fast and lost too many answers: a cascade, or a mix.

A cascade (`optimize.cascade`) computes close calls again in f32 and costs a trial; a mix (`optimize.mixed`) keeps
the most sensitive nodes in f32 and costs many builds. So cascades go first, and a mix that was found gets one, too.
What lost nothing gets a cascade as well: other samples may say otherwise. Sees tuning data only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from hasten.engine.base import engines
from hasten.errors import EngineError, HastenError, MissingError
from hasten.measure.cost import costs
from hasten.measure.margins import Margins, margins_of
from hasten.optimize import mixed
from hasten.optimize.build import Builder
from hasten.optimize.cascade import can_cascade, cascading, is_cascade, limit_for
from hasten.optimize.pick import accuracy_trouble, by_speed, gain_of, why_not
from hasten.optimize.races import Races
from hasten.optimize.trial import Bench, accuracy_of, pair_of
from hasten.optimize.trials import Trial, TrialLog, fingerprint, tuning_key
from hasten.optimize.tuned import Tuned, line, speed_of
from hasten.optimize.wish import composed
from hasten.spec.evidence import Evidence
from hasten.spec.measurement import Figure, Measurement
from hasten.spec.progress import Listener, Progress
from hasten.spec.slo import Goal
from hasten.spec.values import Value
from hasten.spec.variant import Step, Variant
from hasten.stats.change import chance_to_prove
from hasten.transform.base import TransformFailed
from hasten.verify.judge import judge

__all__ = ["SecondChances"]

# The share of the tuning time after which none begins.
_LAST = 0.9
# A candidate must have been this fast, relative to the best so far, to be worth another try.
_WORTH = 1.05
# The fewest builds of a mix that is worth beginning.
_MIX_BUILDS = 3
# A share that leaves something to the next mix.
_MIX_SHARE = 0.67


class Errors(Value, frozen=True):
    """Errors that were asked for, for the trial log."""

    errors: tuple[float | None, ...]


class Accuracy(Value, frozen=True):
    """Accuracy alone of a variant; None where it does not build or run."""

    evidence: Evidence | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SecondChances:
    """What they need. `spent()` is the share of the tuning time that is gone, of `time_s` seconds; `measure` tries a
    variant in full and puts its trial where it is told; `exhaustive` knows no limit of time.
    """

    bench: Bench
    builder: Builder
    log: TrialLog
    races: Races
    goal: Goal
    holdout_samples: int
    spent: Callable[[], float]
    time_s: float
    exhaustive: bool
    listener: Listener
    measure: Callable[[Tuned, Variant], Trial]

    def give(self, tuned: Tuned) -> None:
        """Try what is worth it, and add the trials to `tuned`."""
        self.cascade(tuned)
        self._mix(tuned)

    def cascade(self, tuned: Tuned) -> None:
        """The fastest of each kind that can compute close calls again does so, also where it is safe as it is. Those
        that have done so before do not again.
        """
        for trial in self._worth(tuned, _may_cascade, safe_too=True):
            if self._late(_LAST):
                return
            self._cascaded(tuned, trial.variant)

    def _cascaded(self, tuned: Tuned, variant: Variant) -> None:
        """The variant with its close calls again in f32, where they are few enough."""
        if any(trial.variant.id == f"{variant.id}-cascade" for trial in tuned.trials):
            return
        try:
            limit = self._limit(tuned, variant)
            if limit is None:
                self._note(f"{variant.id}-cascade", f"{variant.id}: computing close calls again does not make it surer")
                return
            cascade = cascading(variant, limit)
            self.measure(tuned, cascade)
            left_out = tuned.builds[variant.id].left_out if variant.id in tuned.builds else ()
            tuned.builds[cascade.id] = composed(cascade, self.builder, left_out).build
        except HastenError as error:
            self._note(f"{variant.id}-cascade", f"{variant.id}-cascade: {error.message}")

    def _limit(self, tuned: Tuned, variant: Variant) -> float | None:
        """The margin that is worth a trial, by all data for choosing: few answers are close calls. What a resumed run
        has found already is not sought again.
        """
        key = f"cascade/{variant.id}/{fingerprint(variant.recipe)[:16]}"
        kept = self.log.get(key, list[float])
        if kept is None:
            self._say(f"cascade: how close the calls of {variant.id} are")
            model = self.builder.build(variant)
            with self.bench.loader(model, variant.target) as arm:
                margins = margins_of(pair_of(replace(self.bench, data=self.races.data), variant, model, arm))
            limit = None
            if margins is not None:
                self._learn(tuned, variant, margins.figures())
            if margins is not None and (margins.changed or margins.are_telling):
                gain = _fastest(tuned, lambda one: one == variant)
                # In f32 on the same engine, or as the reference where that is not known.
                full = _fastest(tuned, lambda one: one.target.engine == variant.target.engine and _is_full(one))
                limit = limit_for(margins, lambda below: self._chance(variant, margins, below), gain, 1 / full)
            kept = [] if limit is None else [limit]
            self.log.put(key, kept)
        return kept[0] if kept else None

    def _learn(self, tuned: Tuned, variant: Variant, figures: dict[str, Figure]) -> None:
        """Judge a trial anew by all data for choosing: it may have had fewer, and rare losses show on many only."""
        metrics, prices = self.bench.data.dataset.metrics, self.goal.prices
        for at, trial in enumerate(tuned.trials):
            if trial.variant == variant and trial.evidence is not None:
                before = trial.evidence.measurement
                # What a right answer costs follows from how many are right.
                known = {"throughput_rps": before.throughput_rps, **figures}
                measurement = before.with_figures({**figures, **costs(known, metrics, prices)})
                evidence = judge(variant, measurement, self.goal)
                tuned.trials[at] = msgspec.structs.replace(trial, evidence=evidence)
                self.log.put(tuning_key(variant), tuned.trials[at])
                if measurement.accuracy_change != before.accuracy_change:
                    self._note(variant.id, f"{line(tuned.trials[at])} on all data for choosing")

    def _chance(self, variant: Variant, margins: Margins, below: float) -> float:
        """How likely a claim is to be proven with answers below this margin computed again; 0 or 1 where answers are
        not simply right or wrong.
        """
        metric, bound = self.bench.data.dataset.metric, self.goal.slo.accuracy_drop_max
        if metric.kind == "binary":
            gained, lost = margins.flips_with(below)
            return chance_to_prove(gained, lost, len(margins.margins), max(self.holdout_samples, 1), bound)
        change = {"accuracy_change": margins.change_with(below)}
        measurement = Measurement(split="tuning", metric=metric.info).with_figures(change)
        return float(self._trouble(judge(variant, measurement, self.goal)) is None)

    def _mix(self, tuned: Tuned) -> None:
        """Give candidates of lower precision that lost a second chance with fewer lowered nodes. What builds fastest
        goes first; each has its share of the time that is left.
        """
        worth = self._worth(tuned, _may_be_mixed)
        worth.sort(key=lambda trial: (len(trial.variant.recipe), -(speed_of(trial) or 0.0)))
        for left, trial in zip(range(len(worth), 0, -1), worth, strict=True):
            if self._late(_LAST) or not self._time_to_mix(trial):
                continue
            start = self.spent()
            end = start + (_LAST - start) * (_MIX_SHARE if left > 1 else 1.0)
            try:
                self._mixed(tuned, trial, lambda share, start=start, end=end: self._late(start + share * (end - start)))
            except (TransformFailed, MissingError, EngineError) as error:
                # A mix that cannot be built or run costs itself, not the search.
                self._note(f"{trial.variant.id}-mixed", f"{trial.variant.id}-mixed: {error.message}")

    def _time_to_mix(self, trial: Trial) -> bool:
        """Mixing builds the candidate anew several times over; each build and trial takes about as long as it did."""
        left_s = (1 - self.spent()) * self.time_s
        return self.exhaustive or left_s >= _MIX_BUILDS * trial.seconds

    def _late(self, share: float) -> bool:
        return self.spent() > share and not self.exhaustive

    def _worth(self, tuned: Tuned, able: Callable[[Evidence], bool], *, safe_too: bool = False) -> list[Trial]:
        """The fastest of each engine and precision that is able, not safe as it is, and faster than what is safe; with
        `safe_too` also what is safe, and faster than what is safe and not able.
        """
        if not by_speed(self.goal):
            return []

        def is_safe(item: Evidence) -> bool:
            # Where what is safe may cascade as well, what is safe by luck only does not count as safe.
            doubted = safe_too and self._trouble(item) is not None
            return why_not(item, self.goal, self.holdout_samples) is None and not doubted

        safe = [(gain_of(item, self.goal), able(item)) for item in tuned.evidence() if is_safe(item)]
        best = max((gain for gain, _ in safe), default=1.0)
        sure = max((gain for gain, may in safe if not may), default=1.0)
        kinds: dict[object, Trial] = {}
        for trial in sorted(tuned.trials, key=lambda trial: -(speed_of(trial) or 0.0)):
            item = trial.evidence
            if item is None or not able(item) or (is_safe(item) and not safe_too):
                continue
            if (item.measurement.speedup.value or 0.0) > (sure if is_safe(item) else best) * _WORTH:
                kinds.setdefault((item.variant.target.engine, item.variant.target.precision), trial)
        return list(kinds.values())

    def _mixed(self, tuned: Tuned, trial: Trial, late: Callable[[float], bool]) -> None:
        variant = _lowered(trial.variant)
        assert variant is not None
        sites = self.races.sites(variant.recipe[-1], variant.recipe[:-1])
        self._say(f"mixed precision: {variant.id}, {len(sites)} nodes")
        found = mixed.mixed_precision(
            variant,
            sites,
            mixed.Bench(
                errors=lambda skips: self._errors(variant, skips),
                accurate=self._holds,
                judge=lambda candidate: self.measure(Tuned(), candidate),
                ratios=lambda base, others: self.races.ratios(variant.target, base, others),
                late=late,
            ),
            holds=self._accurate(trial),
        )
        if found is None:
            self._note(f"{variant.id}-mixed", f"{variant.id}: no mix was found in time")
            return
        tuned.trials.append(found)
        if found.evidence is not None:
            tuned.builds[found.variant.id] = composed(found.variant, self.builder).build
            if _may_cascade(found.evidence) and not self._late(1.0):
                # The mix was chosen among many, by the samples on which it looks best. Its closest calls cost little.
                self._cascaded(tuned, found.variant)

    def _errors(self, variant: Variant, skips: Sequence[Sequence[str]]) -> list[float | None]:
        """What a resumed run has asked for already is not asked for again."""
        step = variant.recipe[-1]
        each = [Step(transform=step.transform, options=step.options, skip=tuple(skip)) for skip in skips]
        key = f"errors/{variant.id}/{fingerprint((*variant.recipe[:-1], *each))[:16]}"
        kept = self.log.get(key, Errors)
        if kept is None:
            kept = Errors(errors=tuple(self.builder.errors(variant.recipe, skips)))
            self.log.put(key, kept)
        return list(kept.errors)

    def _holds(self, variant: Variant) -> bool:
        """Whether the accuracy bound is likely to hold, from accuracy alone."""
        key = f"accuracy/{variant.id}/{fingerprint(variant.recipe)[:16]}"
        kept = self.log.get(key, Accuracy)
        if kept is None:
            kept = Accuracy(evidence=accuracy_of(self.bench, variant, self.builder.build))
            self.log.put(key, kept)
        item = kept.evidence
        trouble = "it does not run" if item is None else self._trouble(item)
        self._say(
            f"mixed precision: {variant.id} with {len(variant.recipe[-1].skip)} nodes in f32: {trouble or 'holds'}"
        )
        return not trouble

    def _accurate(self, trial: Trial) -> bool:
        item = trial.evidence
        return item is not None and self._trouble(item) is None

    def _trouble(self, item: Evidence) -> str | None:
        """Why the accuracy bound is not likely to hold, of one that is chosen among many."""
        return accuracy_trouble(item, self.goal, self.holdout_samples, errors=1.0)

    def _note(self, id_: str, words: str) -> None:
        self.listener(Progress(stage=f"tuning/{id_}", note=words))

    def _say(self, stage: str) -> None:
        self.listener(Progress(stage=stage))


def _fastest(tuned: Tuned, which: Callable[[Variant], bool]) -> float:
    """The highest speedup among those; 1 where there is none."""
    return max([speed_of(trial) or 1.0 for trial in tuned.trials if which(trial.variant)], default=1.0)


def _is_full(variant: Variant) -> bool:
    return variant.target.precision == "f32"


def _may_cascade(item: Evidence) -> bool:
    return can_cascade(item.variant, engines.get(item.variant.target.engine).honours)


def _lowered(variant: Variant) -> Variant | None:
    """The variant with a last step that lowers precision node by node; None where there is no such step.

    bf16 loses answers both ways without losing accuracy, and a bound is not proven then: fewer of them help.
    """
    target = variant.target
    if is_cascade(variant):
        return None
    if target.precision == "int8" and variant.recipe:
        return variant
    if (target.engine, target.precision) == ("openvino", "bf16"):
        return msgspec.structs.replace(variant, recipe=(*variant.recipe, Step(transform="compute_bf16")))
    return None


def _may_be_mixed(item: Evidence) -> bool:
    """int8 whose accuracy did not fall at all is left alone: only more data helps there, and no other nodes."""
    if _lowered(item.variant) is None:
        return False
    if item.variant.target.precision != "int8":
        return True
    change = item.measurement.accuracy_change.value
    return change is not None and (change < 0) == item.measurement.metric.higher_is_better and change != 0
