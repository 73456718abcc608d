"""What slows a model down is dropped, node by node where that is possible, with the measured reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hasten.optimize.build import Builder
from hasten.optimize.payoff import Paying, drop_what_does_not_pay
from hasten.spec.measurement import Figure
from hasten.spec.variant import Step
from hasten.stats.ratio import speedup
from hasten.transform.base import TransformFailed

SITES = ["a", "b", "c", "d"]


class Builds(Builder):
    """Builds anything, but for steps that stand on one that is missing."""

    def __init__(self, needs: dict[str, str] | None = None) -> None:
        self._needs = needs or {}

    def build_recipe(self, recipe: tuple[Step, ...]) -> Path:
        names = [step.transform for step in recipe]
        if recipe and (needed := self._needs.get(names[-1])) and needed not in names:
            raise TransformFailed(f"{names[-1]} does not apply: nothing to do.")
        return Path("model.onnx")


def drop(costs: dict[str, float], names: Sequence[str], builder: Builder | None = None, **by_site: float) -> Paying:
    """Each step multiplies the time by its cost; `by_site` are costs of single nodes of the step called fuse."""

    def cost(step: Step) -> float:
        factor = costs.get(step.transform, 1.0)
        for site in SITES if step.transform == "fuse" else []:
            factor *= 1.0 if site in step.skip else by_site.get(site, 1.0)
        return factor

    rng = np.random.default_rng(0)

    def race(arms: Mapping[str, tuple[Step, ...]]) -> dict[str, list[float]]:
        return {
            name: list(10 * np.prod([cost(s) for s in recipe]) * np.exp(rng.normal(0, 0.01, 24)))
            for name, recipe in arms.items()
        }

    def compare(before: Sequence[float], after: Sequence[float]) -> Figure:
        return speedup(before, after)

    return drop_what_does_not_pay(
        tuple(Step(transform=name) for name in names),
        builder or Builds(),
        race=race,
        compare=compare,
        sites_of=lambda step, before: SITES if step.transform == "fuse" else [],
    )


def names(paying: Paying) -> list[str]:
    return [step.transform for step in paying.recipe]


def test_steps_that_help_or_do_nothing_stay() -> None:
    paying = drop({"fold": 1.0, "layout": 0.8}, ["fold", "layout"])
    assert names(paying) == ["fold", "layout"]
    assert paying.left_out == ()


def test_a_step_that_slows_the_model_down_goes_with_the_measured_reason() -> None:
    paying = drop({"layout": 1.3}, ["fold", "layout"])
    assert names(paying) == ["fold"]
    [left_out] = paying.left_out
    assert left_out.transform == "layout"
    assert "does not pay: 0.7" in left_out.reason


def test_a_step_that_harms_on_some_nodes_is_kept_on_the_others() -> None:
    paying = drop({}, ["fuse"], a=1.9, c=0.7, d=0.9)
    [step] = paying.recipe
    assert set(step.skip) == {"a", "b"}
    assert "2 are left alone" in paying.left_out[0].reason


def test_a_step_that_harms_on_every_node_goes_whole() -> None:
    paying = drop({}, ["fuse"], a=1.2, b=1.2, c=1.2, d=1.2)
    assert paying.recipe == ()


def test_a_step_that_stood_on_a_dropped_one_goes_too_and_says_why() -> None:
    paying = drop({"fold": 1.5}, ["fold", "layout"], Builds({"layout": "fold"}))
    assert paying.recipe == ()
    assert "does not apply" in paying.left_out[1].reason
