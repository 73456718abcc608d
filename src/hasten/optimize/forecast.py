"""How good will a candidate be that was not tried yet? A cost model that learns from each finished trial.

A candidate is described by traits: its engine, its precision, each technique, fewer threads, a turned knob. The
logarithm of its speedup is modelled as a sum of one effect for each trait: normal, with a mean and a spread that come
from experience (`_MEAN`, `_SPREAD`), and corrected by every trial that shares the trait (Bayesian linear regression, in
its form as a Gaussian process; Rasmussen and Williams 2006, section 2.2). So one slow trial of an engine speaks against
its other candidates at once, and a trial of an earlier run on the same machine speaks too, more softly.

What is worth trying is then the expected improvement over the best so far (Jones, Schonlau and Welch 1998), times the
chance that the answers will do, over the seconds that trying takes. Pure: no clock, no files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from hasten.engine.host import environment, has_dot_products
from hasten.optimize.wish import Wish
from hasten.spec.target import SHAPE_KNOBS
from hasten.spec.values import Value
from hasten.spec.variant import Step

__all__ = ["WORTH", "Forecast", "Lesson", "Prospect", "techniques_of", "traits_of"]

# An expected improvement below this is not worth a trial: a tenth of what two processes of one model differ by.
WORTH = 0.002

# Means of the logarithm of the speedup over the reference, by trait; what is not named here has mean 0.
_MEAN = {
    "engine=torch": -0.35,
    "precision=bf16": 0.35,
    "precision=int8": 0.3,
    "precision=f16": -0.2,
    "precision=int4": -0.4,
    "fewer threads": -0.35,
    "compile=eager": -0.2,
    "trim": 0.3,
    "lengths": 0.2,
    "graph=onnxruntime": 0.04,
    "technique=openvino,quantize_nncf": 0.1,
    "pair=openvino,int8": 0.2,
}
# Processors with instructions for products of 8-bit numbers, or of tiles of bf16, gain about twice as much from them.
_MEAN_INT8_DOT, _MEAN_BF16_TILES = 0.6, 0.7
# Standard deviations of the effects, by the kind of the trait.
_SPREAD = {
    "": 0.1,
    "engine": 0.3,
    "precision": 0.25,
    "pair": 0.15,
    "technique": 0.2,
    "graph": 0.08,
    # Far apart: where another guest takes part of a core, one thread may be the fastest of all.
    "fewer threads": 0.35,
    "knob": 0.04,
    "compile": 0.15,
    "scale": 0.1,
    # Nothing where clients do not pad, several times where they do: the first trial tells for all engines.
    "trim": 0.6,
    "lengths": 0.2,
}
# What a trial may be off by besides its own interval: this run's, and those of earlier runs of the same model and of
# other models.
_NOISE, _SAME_MODEL, _OTHER_MODEL = 0.03, 0.1, 0.4
# The share of an effect's variance that is the same for all models; the rest is each model's own. However many lessons
# of others there are, what this model shows itself is believed.
_ALIKE = 0.5
# How often the fastest narrow format fails on other samples than those that chose it.
_NEEDED = 0.3
# How often answers stay good enough, before anything is known of the model.
_SAFE = {"f32": 0.97, "bf16": 0.85, "f16": 0.9, "int8": 0.45, "int4": 0.35}
_SAFE_TECHNIQUE = {"quantize_dynamic": 0.65, "quantize_nncf": 0.4}
# What a technique makes of the chance that there was before it.
_SAFE_FACTOR = {"reduce_resolution": 0.3, "reduce_length": 0.3}
# Votes of a trial for the safety of another: with the same techniques and precision it gives nearly the same answers,
# on the same engine, whatever the threads, the very same; the precision alone tells little.
_SAME_ANSWERS, _SAME_TECHNIQUES, _SAME_PRECISION = 12.0, 3.0, 0.3
# Seconds that a technique takes on a model of the usual size.
_BUILD_S = {"quantize_nncf": 10.0, "quantize_static": 7.0, "quantize_dynamic": 4.0, "export_onnx": 10.0}
_BUILD_OTHER_S = 2.0
# Techniques that are optional are raced one by one.
_RACES_S = 8.0


class Lesson(Value, frozen=True):
    """What one finished trial teaches. `log_gain` is the logarithm of its speedup and `spread` its standard error;
    both are None where it did not run. `safe` says whether the answers would do (None: not known). `model` is the
    digest of the trained model; an empty one stands for the model at hand.
    """

    traits: tuple[str, ...]
    techniques: tuple[str, ...]
    precision: str
    log_gain: float | None = None
    spread: float | None = None
    safe: bool | None = None
    seconds: float = 0.0
    model: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prospect:
    """A candidate's outlook. `gain` is the expected speedup with its interval of 95 %; `safe` the chance that its
    answers do; `worth` the expected improvement times that chance; `seconds` what trying takes.
    """

    wish: Wish
    gain: float
    low: float
    high: float
    safe: float
    worth: float
    seconds: float

    @property
    def rate(self) -> float:
        """Worth for each second: what the queue is ordered by."""
        return self.worth / self.seconds


class Forecast:
    """Learns from lessons, and ranks wishes. `model` is the digest of the model at hand: earlier runs may know it."""

    def __init__(self, model: str = "", history: Iterable[Lesson] = ()) -> None:
        self._model = model
        self.lessons = list(history)
        self._trial_s = 5.0

    def learn(self, lesson: Lesson) -> None:
        """Take a finished trial of this run into account."""
        self.lessons.append(lesson)
        if lesson.seconds > 0 and not lesson.model:
            self._trial_s += 0.5 * (max(0.5, lesson.seconds - _build_s(lesson.techniques)) - self._trial_s)

    def rank(self, wishes: Sequence[Wish], best_gain: float, sure_gain: float | None = None) -> list[Prospect]:
        """Return the outlook of each wish against the best safe speedup so far (1: the reference;
        `hasten.optimize.standing.Leader.to_beat`), the most rewarding first; equals stay in the order in which they
        were planned. `sure_gain` is the best speedup in f32 so far: another in f32 may be needed where fewer bits fail
        on other samples, and is worth a share of what it adds there.
        """
        if not wishes:
            return []
        means, spreads = self._gains([traits_of(wish) for wish in wishes])
        goal = math.log(max(best_gain, 1.0))
        sure = goal if sure_gain is None else math.log(max(sure_gain, 1.0))
        prospects = [
            self._prospect(wish, float(mean), float(spread), goal, sure if wish.target.precision == "f32" else goal)
            for wish, mean, spread in zip(wishes, means, spreads, strict=True)
        ]
        return sorted(prospects, key=lambda prospect: -prospect.rate)

    def _prospect(self, wish: Wish, mean: float, spread: float, goal: float, sure: float) -> Prospect:
        safe = self._safe(wish)
        gain = max(_expected_improvement(mean, spread, goal), _NEEDED * _expected_improvement(mean, spread, sure))
        return Prospect(
            wish=wish,
            gain=math.exp(mean),
            low=math.exp(mean - 1.96 * spread),
            high=math.exp(mean + 1.96 * spread),
            safe=safe,
            worth=safe * gain,
            seconds=self._trial_s + _build_s(techniques_of(wish)) + _RACES_S * _is_raced(wish),
        )

    def _gains(self, asked: Sequence[tuple[str, ...]]) -> tuple[np.ndarray, np.ndarray]:
        """Posterior means and standard deviations of log speedups."""
        known = [lesson for lesson in self.lessons if lesson.log_gain is not None]
        prior = np.array([_mean(traits) for traits in asked])
        variance = np.array([_shared(traits, traits) for traits in asked])
        if not known:
            return prior, np.sqrt(variance)
        cross = np.array([[_shared(a, b.traits) * self._alike("", b.model) for b in known] for a in asked])
        inner = np.array([[_shared(a.traits, b.traits) * self._alike(a.model, b.model) for b in known] for a in known])
        inner[np.diag_indices(len(known))] += [self._noise(lesson) ** 2 for lesson in known]
        surprise = np.array([(lesson.log_gain or 0.0) - _mean(lesson.traits) for lesson in known])
        weights = np.linalg.solve(inner, cross.T).T
        left = variance - np.einsum("ij,ij->i", weights, cross)
        return prior + weights @ surprise, np.sqrt(np.maximum(left, 1e-6))

    def _alike(self, a: str, b: str) -> float:
        """How much of the effects two models have in common: all that one has with itself."""
        return 1.0 if (a or self._model) == (b or self._model) else _ALIKE

    def _noise(self, lesson: Lesson) -> float:
        own = math.hypot(_NOISE, lesson.spread or 0.0)
        if not lesson.model:
            return own
        return math.hypot(own, _SAME_MODEL if lesson.model == self._model else _OTHER_MODEL)

    def _safe(self, wish: Wish) -> float:
        """The chance that answers stay good: experience, and trials with the same techniques or precision as votes."""
        mine, precision = set(techniques_of(wish)), wish.target.precision
        prior = _SAFE[precision]
        prior = next((chance for name, chance in _SAFE_TECHNIQUE.items() if _names(mine, name)), prior)
        for name, factor in _SAFE_FACTOR.items():
            if _names(mine, name):
                prior *= factor
        weight, votes = 1.0, prior
        for lesson in self.lessons:
            if lesson.safe is None:
                continue
            vote = _SAME_PRECISION if lesson.precision == precision else 0.0
            if vote and set(lesson.techniques) == mine:
                vote = _SAME_ANSWERS if f"engine={wish.target.engine}" in lesson.traits else _SAME_TECHNIQUES
            vote *= 1.0 if lesson.model in ("", self._model) else 0.1
            weight, votes = weight + vote, votes + vote * lesson.safe
        return votes / weight


def traits_of(wish: Wish) -> tuple[str, ...]:
    """What a candidate shares with others. The first is shared by all: how far this model differs from the usual."""
    target = wish.target
    traits = ["", f"engine={target.engine}", f"precision={target.precision}"]
    traits.append(f"pair={target.engine},{target.precision}")
    required = [want.step for want in wish.wants if want.required]
    optional = [want.step for want in wish.wants if not want.required]
    traits += [f"scale={step.options['scale']}" for step in required if "scale" in step.options]
    traits += [f"technique={target.engine},{step}" for step in required if "scale" not in step.options]
    if optional and not required:
        traits.append(f"graph={target.engine}")
    if target.runtime.lengths or any(want.step.transform == "trim_padding" for want in wish.wants):
        traits.append("trim")
    if target.runtime.lengths:
        traits.append("lengths")
    if 0 < target.threads < environment().cores_physical:
        traits.append("fewer threads")
    traits += [f"knob={target.engine},{name}" for name in sorted(target.runtime.turned() - SHAPE_KNOBS)]
    if not target.pin:
        traits.append(f"knob={target.engine},unpinned")
    traits += [f"{key}={value}" for key, value in sorted(target.options.items()) if key == "compile"]
    return tuple(traits)


def _is_raced(wish: Wish) -> bool:
    """Whether its techniques are optional, so that each is raced, and taken out where it does not pay."""
    return bool(wish.wants) and not any(want.required for want in wish.wants)


def techniques_of(wish: Wish) -> tuple[str, ...]:
    """The techniques that may change answers or take long to build, with their options."""
    return tuple(str(Step(transform=w.step.transform, options=w.step.options)) for w in wish.wants if w.required)


def _names(techniques: Iterable[str], name: str) -> bool:
    return any(text.startswith(name) for text in techniques)


def _mean(traits: Iterable[str]) -> float:
    return sum(_of_trait(trait) for trait in traits)


def _of_trait(trait: str) -> float:
    """The mean of a trait's effect on this machine; of NNCF's whatever its options, of fewer pixels by their number."""
    host, nncf = environment(), "technique=openvino,quantize_nncf"
    if trait == "precision=int8" and has_dot_products(host):
        return _MEAN_INT8_DOT
    if trait == "precision=bf16" and "amx_bf16" in host.features:
        return _MEAN_BF16_TILES
    return _MEAN.get(nncf if trait.startswith(nncf) else trait, _of_scale(trait))


def _of_scale(trait: str) -> float:
    """Work falls with the number of pixels; what is not convolution gains less."""
    kind, _, value = trait.partition("=")
    return -1.5 * math.log(float(value)) if kind == "scale" else 0.0


def _shared(a: tuple[str, ...], b: tuple[str, ...]) -> float:
    """Covariance: the variances of the effects that both have."""
    return sum(_SPREAD.get(trait.partition("=")[0], 0.1) ** 2 for trait in set(a) & set(b))


def _build_s(techniques: Iterable[str]) -> float:
    return sum(_BUILD_S.get(text.partition("(")[0], _BUILD_OTHER_S) for text in techniques)


def _expected_improvement(mean: float, spread: float, goal: float) -> float:
    z = (mean - goal) / spread
    normal = NormalDist()
    # Far below the goal the two terms cancel, and rounding may leave less than nothing.
    return max(0.0, spread * normal.pdf(z) + (mean - goal) * normal.cdf(z))
