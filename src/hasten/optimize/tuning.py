"""The tuning stage: candidates by their outlook, what does not pay given back, second chances. Sees tuning data only.

    first wave: engine x precision x recipe ─> what slows a recipe down is dropped ─> measured
    second chances, from halfway on: int8 and bf16 that lost ─> close calls or sensitive nodes in f32 ─> measured
    neighbours of the best: threads, knobs, lower resolutions ─> measured, until the best has none left

Each trial corrects the forecast of all that wait: the most rewarding goes next, and a wave ends when nothing that is
left is worth its time. A candidate that a few rounds show to be far behind is not measured further. Each finished piece
is in the trial log before the next begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from hasten.data.dataset import Subset
from hasten.engine.base import engines
from hasten.engine.host import environment
from hasten.errors import EngineError, MissingError
from hasten.measure.base import Plan
from hasten.measure.contention import Watch
from hasten.optimize.build import Builder
from hasten.optimize.cascade import is_cascade
from hasten.optimize.chances import SecondChances
from hasten.optimize.forecast import WORTH, Forecast, Prospect
from hasten.optimize.payoff import drop_what_does_not_pay
from hasten.optimize.pick import by_speed, finalists
from hasten.optimize.plan import second_wave
from hasten.optimize.races import Races
from hasten.optimize.standing import (
    Leader,
    behind,
    is_open_form,
    leader_of,
    lesson_of,
    lesson_of_reference,
    stand_by,
    unlikely,
)
from hasten.optimize.trial import Bench, Loader, try_variant
from hasten.optimize.trials import Trial, TrialLog, tuning_key
from hasten.optimize.tuned import Tuned, line, refused
from hasten.optimize.wish import Composed, Want, Wish, compose, composed
from hasten.spec.measurement import Figure
from hasten.spec.progress import Listener, Progress
from hasten.spec.slo import Goal
from hasten.spec.target import Target
from hasten.spec.variant import REFERENCE, Variant
from hasten.transform.base import TransformFailed

__all__ = ["Tuning"]

_ALWAYS = 2
# The share of the tuning time after which no further candidate of the first wave begins.
_FIRST = 0.7
# The share after which something in f32 has its turn, where a narrower format leads.
_STAND_BY = 0.35
# The share after which what is fast and may lose too much is looked at more closely, before others are tried: where it
# is much faster than what is safe, the search hangs on it.
_SETTLE = 0.5


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
        self.forecast.learn(lesson_of_reference(reference))
        self._search(tuned, wishes, _FIRST, settle=_SETTLE)
        self._second_chances().give(tuned)
        honours = {name: engines.get(name).honours for name in {wish.target.engine for wish in wishes}}
        while more := [w for w in second_wave(self._best(tuned), honours, self.smaller) if w.id not in tuned.wishes]:
            self._search(tuned, more, 1.0)
        return tuned

    def _search(self, tuned: Tuned, wishes: Sequence[Wish], share: float, settle: float = math.inf) -> None:
        """Try wishes, the most rewarding first, while one is worth it and less than `share` of the time is spent. Once
        `settle` of it is, the fastest so far compute their close calls again.
        """
        waiting, settled = list(wishes), self.exhaustive
        while waiting:
            if self.spent() > settle and not settled:
                settled = True
                self._second_chances().cascade(tuned)
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
        leader, sure = self._leader(tuned), self._sure(tuned)
        ranked = self.forecast.rank(waiting, leader.to_beat, sure.to_beat)
        done = next((wish for wish in waiting if self._finished(wish)), None)
        # Whatever is not worth its time is refused for good: before that, what may stand in has its turn.
        late = self.spent() > _STAND_BY or ranked[0].worth < WORTH
        if done is None and self._by_speed and late:
            spare = stand_by(ranked, tuned.trials, _target_of(leader, tuned), sure)
            if spare is not None:
                return spare
        wanted = done or _plainest(ranked[0].wish if self._by_speed else waiting[0], waiting)
        return next(prospect for prospect in ranked if prospect.wish is wanted)

    def _refusal(self, tuned: Tuned, prospect: Prospect, share: float) -> Trial | None:
        """Why a candidate is not tried, or None. The first few are: a search that tried nothing has found nothing."""
        wish = prospect.wish
        if self.exhaustive or self._finished(wish) or tuned.ran() < _ALWAYS:
            return None
        if self.spent() > share:
            return refused(wish.variant, "budget", f"The budget of {self.budget_text} was spent before its turn.")
        if self._by_speed and prospect.worth < WORTH:
            return refused(wish.variant, "forecast", unlikely(prospect, self._leader(tuned)))
        return None

    def _try(self, tuned: Tuned, wish: Wish) -> None:
        """Compose, give back what does not pay, measure. What fails is a rejection with its reason."""
        started = self.bench.clock.now()
        try:
            made = self._composed(wish)
        except (TransformFailed, MissingError, EngineError) as error:
            tuned.trials.append(refused(wish.variant, "build", str(error)))
            self._note(wish.id, tuned.trials[-1])
            return
        tuned.builds[wish.id] = made.build
        twin = _twin(made.variant, tuned)
        if twin:
            left_out = " ".join(f"{item.transform}: {item.reason}" for item in made.build.left_out)
            tuned.trials.append(refused(made.variant, "build", f"It is the same as {twin}. {left_out}".strip()))
            self._note(wish.id, tuned.trials[-1])
            return
        self._measure(tuned, made.variant, built_s=self.bench.clock.now() - started)

    def _measure(self, tuned: Tuned, variant: Variant, built_s: float = 0.0) -> Trial:
        key = tuning_key(variant)
        trial = self.log.get(key, Trial)
        if trial is None:
            bench = self.bench if variant.id == REFERENCE else replace(self.bench, behind=self._behind(tuned, variant))
            if is_cascade(variant):
                # Its plain form has answered all of these, and the reference too: on fewer, the surer of both would
                # be the one in doubt.
                bench = replace(bench, data=self.data)
            trial = try_variant(bench, variant, self.builder.build)
            trial = msgspec.structs.replace(trial, seconds=trial.seconds + built_s)
            self.log.put(key, trial)
        tuned.trials.append(trial)
        self._note(variant.id, trial)
        return trial

    @property
    def _races(self) -> Races:
        return Races(builder=self.builder, loader=self.loader, data=self.data, plan=self.plan, watch=self.watch)

    def _second_chances(self) -> SecondChances:
        return SecondChances(
            bench=self.bench,
            builder=self.builder,
            log=self.log,
            races=self._races,
            goal=self.goal,
            holdout_samples=self.holdout_samples,
            spent=self.spent,
            time_s=self.time_s,
            exhaustive=self.exhaustive,
            listener=self.listener,
            measure=self._measure,
        )

    def _leader(self, tuned: Tuned) -> Leader:
        return leader_of(tuned.evidence(), self.goal, self.holdout_samples)

    def _sure(self, tuned: Tuned) -> Leader:
        """The fastest in f32: what is left where fewer bits fail on holdout data."""
        in_f32 = [item for item in tuned.evidence() if item.variant.target.precision == "f32"]
        return leader_of(in_f32, self.goal, self.holdout_samples)

    def _behind(self, tuned: Tuned, variant: Variant) -> Callable[[Figure], str | None] | None:
        """Rules out what is far behind; where memory counts, a slow candidate may still be the one, and a cascade and
        the open form of what leads are there for when what is faster turns out to lose too much.
        """
        stands_by = is_cascade(variant) or is_open_form(variant.target, _target_of(self._leader(tuned), tuned))
        if stands_by or self.exhaustive or not self._by_speed or self.goal.slo.memory_max_mb is not None:
            return None
        return behind(self._sure(tuned) if variant.target.precision == "f32" else self._leader(tuned))

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
            race=lambda arms: self._races.times(made.variant.target, arms),
            compare=self._races.compare,
            sites_of=self._races.sites,
        )
        variant = Variant(id=made.variant.id, target=made.variant.target, recipe=(*prefix, *paying.recipe))
        return composed(variant, self.builder, (*made.build.left_out, *paying.left_out))

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


def _target_of(leader: Leader, tuned: Tuned) -> Target | None:
    return next((trial.variant.target for trial in tuned.trials if trial.variant.id == leader.id != REFERENCE), None)


def _varies(target: Target) -> bool:
    """Whether a target differs from its engine's defaults in anything but the number of threads that is one anyway."""
    return bool(target.runtime.turned() or target.options) or target.threads != environment().cores_physical
