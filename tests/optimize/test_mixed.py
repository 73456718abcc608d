"""Mixed precision: the few nodes that ruin accuracy go back to float, and those that buy no speed; no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.optimize.mixed import Bench, mixed_precision, rank
from hasten.optimize.trials import Trial
from hasten.spec.evidence import Rejection
from hasten.spec.measurement import Figure
from hasten.spec.target import Target
from hasten.spec.variant import Step, Variant

SITES = [f"conv{number}" for number in range(64)]
INT8 = Variant(
    id="int8", target=Target(engine="onnxruntime", precision="int8"), recipe=(Step(transform="quantize_static"),)
)


class World:
    """Nodes in `harmful` ruin accuracy when quantized; nodes in `useless` are no faster for it."""

    def __init__(self, harmful: Sequence[str], useless: Sequence[str] = (), patience: int = 10_000) -> None:
        self.harmful = set(harmful)
        self.useless = set(useless)
        self.built: list[frozenset[str]] = []
        self._patience = patience

    def errors(self, skips: Sequence[tuple[str, ...]]) -> list[float | None]:
        return [self.error(set(SITES) - set(skip)) for skip in skips]

    def error(self, quantized: set[str]) -> float:
        self.built.append(frozenset(quantized))
        return 0.01 * len(quantized) + 10.0 * len(quantized & self.harmful)

    def judge(self, variant: Variant) -> Trial:
        self._patience -= 1
        return Trial(variant=variant, rejection=Rejection(variant=variant, stage="tuning", reason="made up"))

    def accurate(self, trial: Trial) -> bool:
        return not self.harmful & (set(SITES) - set(trial.variant.recipe[-1].skip))

    def ratios(self, base: tuple[Step, ...], others: Sequence[tuple[Step, ...]]) -> list[Figure]:
        speeds = []
        for other in others:
            returned = set(other[-1].skip) - set(base[-1].skip)
            value = 1.01 if returned <= self.useless else 0.8
            speeds.append(Figure(value=value, low=value - 0.01, high=value + 0.01, n=20))
        return speeds

    @property
    def bench(self) -> Bench:
        return Bench(
            errors=self.errors,
            judge=self.judge,
            accurate=self.accurate,
            ratios=self.ratios,
            late=lambda: self._patience <= 0,
        )


def start(variant: Variant = INT8) -> Trial:
    return Trial(variant=variant, rejection=Rejection(variant=variant, stage="tuning", reason="inaccurate"))


@settings(max_examples=40, deadline=None)
@given(harmful=st.sets(st.sampled_from(SITES), min_size=1, max_size=4))
def test_the_harmful_nodes_are_among_those_returned_and_most_others_stay(harmful: set[str]) -> None:
    world = World(sorted(harmful))
    trials = mixed_precision(INT8, SITES, start(), world.bench)
    result = trials[-1].variant
    assert harmful <= set(result.recipe[-1].skip)
    assert world.accurate(trials[-1])
    assert len(result.recipe[-1].skip) <= 40
    assert result.id == "int8-mixed"


def test_a_single_harmful_node_is_found_exactly() -> None:
    trials = mixed_precision(INT8, SITES, start(), World(["conv37"]).bench)
    assert trials[-1].variant.recipe[-1].skip == ("conv37",)


def test_nodes_that_are_no_faster_quantized_go_back_too() -> None:
    world = World([], useless=SITES[:11])
    trials = mixed_precision(INT8, SITES, start(), world.bench)
    assert set(trials[-1].variant.recipe[-1].skip) == set(SITES[:11])


def test_where_everything_is_accurate_and_pays_nothing_is_tried() -> None:
    world = World([])
    assert mixed_precision(INT8, SITES, start(), world.bench) == []


def test_of_two_harmful_halves_the_cheap_one_returns_first() -> None:
    world = World(["conv3", "conv40"], useless=["conv40"])
    order: list[tuple[str, ...]] = []

    def accurate(trial: Trial) -> bool:
        order.append(trial.variant.recipe[-1].skip if trial.variant.recipe else ())
        return "conv40" in order[-1]

    found = mixed_precision(INT8, SITES, start(), replace(world.bench, accurate=accurate))
    assert "conv40" in found[-1].variant.recipe[-1].skip
    assert "conv3" not in found[-1].variant.recipe[-1].skip


def test_without_time_nothing_is_tried() -> None:
    assert mixed_precision(INT8, SITES, start(), World(["conv1"], patience=0).bench) == []


def test_the_number_of_builds_is_bounded_however_many_nodes_there_are() -> None:
    world = World(["conv1", "conv30", "conv63"])
    mixed_precision(INT8, SITES, start(), world.bench)
    assert len(world.built) <= 40


def test_nodes_that_the_recipe_left_alone_before_stay_alone() -> None:
    already = Variant(id="int8", target=INT8.target, recipe=(Step(transform="quantize_static", skip=("conv0",)),))
    trials = mixed_precision(already, SITES[1:], start(already), World(["conv9"]).bench)
    assert set(trials[-1].variant.recipe[-1].skip) >= {"conv9"}


@pytest.mark.parametrize("count", [2, 3, 7, 8, 9, 100])
def test_groups_partition_the_nodes(count: int) -> None:
    sites = [f"n{number}" for number in range(count)]
    groups = rank(sites, lambda groups: [float(len(group)) for group in groups], lambda: False)
    assert sorted(site for group in groups for site in group) == sorted(sites)


def test_a_group_that_cannot_be_built_counts_as_the_most_sensitive() -> None:
    world = World([])

    def errors(skips: Sequence[tuple[str, ...]]) -> list[float | None]:
        return [None if len(skip) == 63 and "conv2" not in skip else 0.1 for skip in skips]

    def accurate(trial: Trial) -> bool:
        return bool(trial.variant.recipe) and "conv2" in trial.variant.recipe[-1].skip

    found = mixed_precision(INT8, SITES[:64], start(), replace(world.bench, errors=errors, accurate=accurate))
    assert "conv2" in found[-1].variant.recipe[-1].skip
