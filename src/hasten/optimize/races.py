"""Races between recipes on one target: what the search asks when steps of a recipe must show that they pay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from hasten.data.dataset import Subset
from hasten.measure.base import Arm, Plan
from hasten.measure.contention import Watch
from hasten.measure.latency import race_times
from hasten.model.open import open_model
from hasten.optimize.build import Builder
from hasten.optimize.trial import Loader
from hasten.spec.measurement import Figure
from hasten.spec.target import Target
from hasten.spec.variant import Step
from hasten.stats.ratio import speedup
from hasten.transform.base import transforms

__all__ = ["Races"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Races:
    """What races need: where models come from, what loads them, and how much is measured on which data."""

    builder: Builder
    loader: Loader
    data: Subset
    plan: Plan
    watch: Watch

    def times(self, target: Target, recipes: Mapping[str, tuple[Step, ...]]) -> dict[str, list[float]]:
        """Milliseconds by round of each recipe on `target`, all in the same rounds; equal models run once."""
        paths = {name: self.builder.build_recipe(recipe) for name, recipe in recipes.items()}
        with ExitStack() as stack:
            arms: dict[Path, Arm] = {
                path: stack.enter_context(self.loader(path, target)) for path in dict.fromkeys(paths.values())
            }
            times = race_times({str(path): arm for path, arm in arms.items()}, self.data, self.plan, self.watch)
        return {name: times[str(path)] for name, path in paths.items()}

    def ratios(self, target: Target, base: tuple[Step, ...], others: Sequence[tuple[Step, ...]]) -> list[Figure]:
        """How many times as fast as `base` each of the other recipes is."""
        times = self.times(target, {"base": base} | {str(at): other for at, other in enumerate(others)})
        return [self.compare(times["base"], times[str(at)]) for at in range(len(others))]

    def compare(self, before: Sequence[float], after: Sequence[float]) -> Figure:
        """The speedup of paired rounds."""
        return speedup(before, after, seed=self.plan.seed)

    def sites(self, step: Step, before: tuple[Step, ...]) -> Sequence[str]:
        """The sites of a step on the model that the recipe `before` it makes."""
        transform = transforms.get(step.transform)
        return transform.sites(open_model(self.builder.build_recipe(before)), {**transform.defaults, **step.options})
