"""The tuning stage: candidates by their outlook, what does not pay given back, mixed precision. Sees tuning data only.

    first wave: engine x precision x recipe ─> what slows a recipe down is dropped ─> measured
    mixed precision: int8 and bf16 candidates that lost ─> fewer lowered nodes ─> measured
    neighbours of the best: threads, knobs, lower resolutions ─> measured, until the best has none left

Each trial corrects the forecast of all that wait: the most rewarding goes next, and a wave ends when nothing that is
left is worth its time. A candidate that a few rounds show to be far behind is not measured further. Each finished piece
is in the trial log before the next begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import msgspec

from hasten.data.dataset import Subset
from hasten.engine.base import engines
from hasten.engine.host import environment
from hasten.errors import EngineError, MissingError
from hasten.measure.base import Arm, Plan
from hasten.measure.contention import Watch
from hasten.measure.latency import race_times
from hasten.model.open import open_model
from hasten.optimize import mixed
from hasten.optimize.build import Builder
from hasten.optimize.forecast import WORTH, Forecast, Prospect
from hasten.optimize.payoff import drop_what_does_not_pay
from hasten.optimize.pick import accuracy_trouble, by_speed, finalists, gain_of, why_not
from hasten.optimize.plan import second_wave
from hasten.optimize.standing import Leader, behind, leader_of, lesson_of, safe_ones, unlikely
from hasten.optimize.trial import Bench, Loader, accuracy_of, try_variant
from hasten.optimize.trials import Trial, TrialLog, fingerprint
from hasten.optimize.wish import Composed, Want, Wish, compose, composed
from hasten.spec.applied import Build
from hasten.spec.evidence import Evidence, Rejection
from hasten.spec.measurement import Figure
from hasten.spec.progress import Listener, Progress
from hasten.spec.slo import Goal
from hasten.spec.target import Target
from hasten.spec.values import Value
from hasten.spec.variant import REFERENCE, Step, Variant
from hasten.stats.ratio import speedup
from hasten.transform.base import TransformFailed, transforms

__all__ = ["Tuned", "Tuning", "line"]

_ALWAYS = 2
# Shares of the tuning time after which no further candidate of a stage begins.
_FIRST, _MIXED = 0.7, 0.9
# A quantized candidate must have been this fast, relative to the best so far, to be worth mixing.
_WORTH_MIXING = 1.05
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


@dataclass(slots=True)
class Tuned:
    """What came out: one trial for each candidate, and how each model was built."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """What the stage needs. `spent()` is the share of the tuning time that is gone, of `time_s` seconds; `smaller` are
    steps that let the model run on smaller inputs. `exhaustive` tries every candidate in full, whatever is expected and
    however long it takes.
    """

    bench: Bench
    builder: Builder
    log: TrialLog
    loader: Loader
    data: Subset
    plan: Plan
    watch: Watch
    goal: Goal
    holdout_samples: int
    spent: Callable[[], float]
    listener: Listener
    budget_text: str
    smaller: Sequence[Want] = ()
    forecast: Forecast = field(default_factory=Forecast)
    exhaustive: bool = False
    time_s: float = math.inf

    def run(self, reference: Variant, wishes: Sequence[Wish]) -> Tuned:
        """Try the reference against itself, then what is worth it, until the time for trying is spent."""
        tuned = Tuned()
        self._measure(tuned, reference)
        self._search(tuned, wishes, _FIRST)
        self._mix(tuned)
        honours = {name: engines.get(name).honours for name in {wish.target.engine for wish in wishes}}
        while more := [w for w in second_wave(self._best(tuned), honours, self.smaller) if w.id not in tuned.wishes]:
            self._search(tuned, more, 1.0)
        return tuned

    def _search(self, tuned: Tuned, wishes: Sequence[Wish], share: float) -> None:
        """Try wishes, the most rewarding first, while one is worth it and less than `share` of the time is spent."""
        waiting = list(wishes)
        while waiting:
            prospect = self._next(tuned, waiting)
            wish = prospect.wish
            waiting.remove(wish)
            tuned.wishes[wish.id] = wish
            refusal = self._refusal(tuned, prospect, share)
            if refusal:
                tuned.trials.append(refusal)
                continue
            self._say(f"{wish.id} ({len(waiting)} more wait)", len(tuned.wishes), len(tuned.wishes) + len(waiting))
            before = len(tuned.trials)
            self._try(tuned, wish)
            for trial in tuned.trials[before:]:
                self.forecast.learn(lesson_of(wish, trial, self.goal, self.holdout_samples))

    def _next(self, tuned: Tuned, waiting: Sequence[Wish]) -> Prospect:
        """What a resumed run has finished already comes first; where speed is not the question, the planned order."""
        ranked = self.forecast.rank(waiting, self._leader(tuned).speed)
        done = next((wish for wish in waiting if self._finished(wish)), None)
        wanted = done or _plainest(ranked[0].wish if self._by_speed else waiting[0], waiting)
        return next(prospect for prospect in ranked if prospect.wish is wanted)

    def _refusal(self, tuned: Tuned, prospect: Prospect, share: float) -> Trial | None:
        """Why a candidate is not tried, or None. The first few are: a search that tried nothing has found nothing."""
        wish = prospect.wish
        if self.exhaustive or self._finished(wish) or tuned.ran() < _ALWAYS:
            return None
        if self.spent() > share:
            return _rejected(wish.variant, "budget", f"The budget of {self.budget_text} was spent before its turn.")
        if self._by_speed and prospect.worth < WORTH:
            return _rejected(wish.variant, "forecast", unlikely(prospect, self._leader(tuned)))
        return None

    def _try(self, tuned: Tuned, wish: Wish) -> None:
        """Compose, give back what does not pay, measure. What fails is a rejection with its reason."""
        started = self.bench.clock.now()
        try:
            made = self._composed(wish)
        except (TransformFailed, MissingError, EngineError) as error:
            tuned.trials.append(_rejected(wish.variant, "build", str(error)))
            self._note(wish.id, tuned.trials[-1])
            return
        tuned.builds[wish.id] = made.build
        twin = _twin(made.variant, tuned)
        if twin:
            left_out = " ".join(f"{item.transform}: {item.reason}" for item in made.build.left_out)
            tuned.trials.append(_rejected(made.variant, "build", f"It is the same as {twin}. {left_out}".strip()))
            self._note(wish.id, tuned.trials[-1])
            return
        self._measure(tuned, made.variant, built_s=self.bench.clock.now() - started)

    def _measure(self, tuned: Tuned, variant: Variant, built_s: float = 0.0) -> Trial:
        key = f"tuning/{variant.id}"
        if variant.id.endswith("-mixed"):
            key += "/" + fingerprint(variant.recipe)[:12]
        trial = self.log.get(key, Trial)
        if trial is None:
            bench = self.bench if variant.id == REFERENCE else replace(self.bench, behind=self._behind(tuned))
            trial = try_variant(bench, variant, self.builder.build)
            trial = msgspec.structs.replace(trial, seconds=trial.seconds + built_s)
            self.log.put(key, trial)
        tuned.trials.append(trial)
        self._note(variant.id, trial)
        return trial

    def _leader(self, tuned: Tuned) -> Leader:
        return leader_of(tuned.evidence(), self.goal, self.holdout_samples)

    def _behind(self, tuned: Tuned) -> Callable[[Figure], str | None] | None:
        """Rules out what is far behind; where memory counts, a slow candidate may still be the one."""
        if self.exhaustive or not self._by_speed or self.goal.slo.memory_max_mb is not None:
            return None
        return behind(self._leader(tuned))

    def _finished(self, wish: Wish) -> bool:
        return self.log.get(f"tuning/{wish.id}", Trial) is not None

    @property
    def _by_speed(self) -> bool:
        return by_speed(self.goal)

    def _composed(self, wish: Wish) -> Composed:
        key = f"composed/{wish.id}"
        kept = self.log.get(key, Composed)
        if kept is None:
            kept = self._paying(compose(wish, self.builder), wish)
            self.log.put(key, kept)
        return kept

    def _paying(self, made: Composed, wish: Wish) -> Composed:
        """Drop steps of a graph recipe that slow it down; steps that the wish is about are for the verdict to judge."""
        optional = [want.step for want in wish.wants if not want.required]
        recipe = made.variant.recipe
        start = next((at for at, step in enumerate(recipe) if step in optional), len(recipe))
        if any(step not in optional for step in recipe[start:]) or len(recipe) - start < 1:
            return made
        prefix, steps = recipe[:start], recipe[start:]
        paying = drop_what_does_not_pay(
            steps,
            self.builder,
            prefix=prefix,
            race=lambda arms: self._race_recipes(made.variant.target, arms),
            compare=self._compare,
            sites_of=self._sites,
        )
        variant = Variant(id=made.variant.id, target=made.variant.target, recipe=(*prefix, *paying.recipe))
        return composed(variant, self.builder, (*made.build.left_out, *paying.left_out))

    def _mix(self, tuned: Tuned) -> None:
        """Give candidates of lower precision that lost a second chance with fewer lowered nodes. What builds fastest
        goes first; each has its share of the time that is left.
        """
        kinds: dict[object, Trial] = {}
        for trial in sorted(tuned.trials, key=lambda trial: -(_speed(trial) or 0.0)):
            if self._worth_mixing(trial, tuned):
                kinds.setdefault((trial.variant.target.engine, trial.variant.target.precision), trial)
        worth = sorted(kinds.values(), key=lambda trial: (len(trial.variant.recipe), -(_speed(trial) or 0.0)))
        for left, trial in zip(range(len(worth), 0, -1), worth, strict=True):
            if self._late(_MIXED) or not self._time_to_mix(trial):
                continue
            start = self.spent()
            end = start + (_MIXED - start) * (_MIX_SHARE if left > 1 else 1.0)
            try:
                self._mixed(tuned, trial, lambda share, start=start, end=end: self._late(start + share * (end - start)))
            except (TransformFailed, MissingError, EngineError) as error:
                # A mix that cannot be built or run costs itself, not the search.
                note = f"{trial.variant.id}-mixed: {error.message}"
                self.listener(Progress(stage=f"tuning/{trial.variant.id}-mixed", note=note))

    def _time_to_mix(self, trial: Trial) -> bool:
        """Mixing builds the candidate anew several times over; each build and trial takes about as long as it did."""
        left_s = (1 - self.spent()) * self.time_s
        return self.exhaustive or left_s >= _MIX_BUILDS * trial.seconds

    def _late(self, share: float) -> bool:
        return self.spent() > share and not self.exhaustive

    def _worth_mixing(self, trial: Trial, tuned: Tuned) -> bool:
        item = trial.evidence
        if item is None or _lowered(item.variant) is None or not self._by_speed:
            return False
        if why_not(item, self.goal, self.holdout_samples) is None:
            return False
        if item.variant.target.precision == "int8" and not _lost_answers(item):
            return False
        best = max(
            (gain_of(e, self.goal) for e in safe_ones(tuned.evidence(), self.goal, self.holdout_samples)), default=1.0
        )
        return (item.measurement.speedup.value or 0.0) > best * _WORTH_MIXING

    def _mixed(self, tuned: Tuned, trial: Trial, late: Callable[[float], bool]) -> None:
        variant = _lowered(trial.variant)
        assert variant is not None
        sites = self._sites(variant.recipe[-1], variant.recipe[:-1])
        self._say(f"mixed precision: {variant.id}, {len(sites)} nodes")
        found = mixed.mixed_precision(
            variant,
            sites,
            mixed.Bench(
                errors=lambda skips: self._errors(variant, skips),
                accurate=self._holds,
                judge=lambda candidate: self._measure(Tuned(), candidate),
                ratios=lambda base, others: self._ratios(variant.target, base, others),
                late=late,
            ),
            holds=self._accurate(trial),
        )
        if found is None:
            self.listener(Progress(stage=f"tuning/{variant.id}-mixed", note=f"{variant.id}: no mix was found in time"))
            return
        tuned.trials.append(found)
        if found.evidence is not None:
            tuned.builds[found.variant.id] = composed(found.variant, self.builder).build

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
        trouble = "it does not run" if item is None else accuracy_trouble(item, self.goal, self.holdout_samples)
        self._say(
            f"mixed precision: {variant.id} with {len(variant.recipe[-1].skip)} nodes in f32: {trouble or 'holds'}"
        )
        return not trouble

    def _accurate(self, trial: Trial) -> bool:
        item = trial.evidence
        return item is not None and accuracy_trouble(item, self.goal, self.holdout_samples) is None

    def _ratios(self, target: Target, base: tuple[Step, ...], others: Sequence[tuple[Step, ...]]) -> list[Figure]:
        times = self._race_recipes(target, {"base": base} | {str(at): other for at, other in enumerate(others)})
        return [self._compare(times["base"], times[str(at)]) for at in range(len(others))]

    def _race_recipes(self, target: Target, recipes: Mapping[str, tuple[Step, ...]]) -> dict[str, list[float]]:
        """Milliseconds by round of each recipe on `target`, all in the same rounds; equal models run once."""
        paths = {name: self.builder.build_recipe(recipe) for name, recipe in recipes.items()}
        with ExitStack() as stack:
            arms: dict[Path, Arm] = {
                path: stack.enter_context(self.loader(path, target)) for path in dict.fromkeys(paths.values())
            }
            times = race_times({str(path): arm for path, arm in arms.items()}, self.data, self.plan, self.watch)
        return {name: times[str(path)] for name, path in paths.items()}

    def _compare(self, before: Sequence[float], after: Sequence[float]) -> Figure:
        return speedup(before, after, seed=self.plan.seed)

    def _sites(self, step: Step, before: tuple[Step, ...]) -> Sequence[str]:
        transform = transforms.get(step.transform)
        return transform.sites(open_model(self.builder.build_recipe(before)), {**transform.defaults, **step.options})

    def _best(self, tuned: Tuned) -> list[Wish]:
        best = finalists(tuned.evidence(), self.goal, self.holdout_samples)[:2]
        return [tuned.wishes[item.variant.id] for item in best if item.variant.id in tuned.wishes]

    def _note(self, id_: str, trial: Trial) -> None:
        self.listener(Progress(stage=f"tuning/{id_}", note=line(trial)))

    def _say(self, stage: str, done: float = 0, total: float = 0) -> None:
        self.listener(Progress(stage=stage, done=done, total=total))


def _plainest(wish: Wish, waiting: Sequence[Wish]) -> Wish:
    """The wish, or first what it builds on: a model that may run as it is is tried so before it is rewritten."""
    before = [w for w in waiting if w.target == wish.target and w.wants == wish.wants[: len(w.wants)]]
    return min([*before, wish], key=lambda w: len(w.wants))


def _speed(trial: Trial) -> float | None:
    return None if trial.evidence is None else trial.evidence.measurement.speedup.value


def _lowered(variant: Variant) -> Variant | None:
    """The variant with a last step that lowers precision node by node; None where there is no such step.

    bf16 loses answers both ways without losing accuracy, and a bound is not proven then: fewer of them help.
    """
    target = variant.target
    if target.precision == "int8" and variant.recipe:
        return variant
    if (target.engine, target.precision) == ("openvino", "bf16"):
        return msgspec.structs.replace(variant, recipe=(*variant.recipe, Step(transform="compute_bf16")))
    return None


def _lost_answers(item: Evidence) -> bool:
    """Whether accuracy fell at all: where it did not, only more data helps, and no other nodes."""
    change = item.measurement.accuracy_change.value
    return change is not None and (change < 0) == item.measurement.metric.higher_is_better and change != 0


def _twin(variant: Variant, tuned: Tuned) -> str | None:
    """A measured variant with the same recipe on the same target; the reference has its engine's default threads."""
    for trial in tuned.trials:
        other = trial.variant
        if trial.evidence is None or other.recipe != variant.recipe:
            continue
        same_engine = (other.target.engine, other.target.precision) == (variant.target.engine, variant.target.precision)
        if other.target == variant.target or (other.id == REFERENCE and same_engine and not _varies(variant.target)):
            return other.id
    return None


def _varies(target: Target) -> bool:
    """Whether a target differs from its engine's defaults in anything but the number of threads that is one anyway."""
    return bool(target.runtime.turned() or target.options) or target.threads != environment().cores_physical


def _rejected(variant: Variant, stage: Literal["build", "budget", "forecast"], reason: str) -> Trial:
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
