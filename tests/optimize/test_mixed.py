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
        return Trial(variant=variant, rejection=Rejection(variant=variant, stage="tuning", reason="made up"))

    def accurate(self, variant: Variant) -> bool:
        self._patience -= 1
        return not self.harmful & (set(SITES) - set(variant.recipe[-1].skip))

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
            late=lambda share: self._patience <= 0,
        )


def mixed(
    world: World, bench: Bench | None = None, variant: Variant = INT8, sites: Sequence[str] = SITES
) -> Trial | None:
    return mixed_precision(variant, sites, bench or world.bench, holds=not world.harmful)


def skipped(found: Trial | None) -> tuple[str, ...]:
    assert found is not None
    return found.variant.recipe[-1].skip


@settings(max_examples=40, deadline=None)
@given(harmful=st.sets(st.sampled_from(SITES), min_size=1, max_size=4))
def test_the_harmful_nodes_are_among_those_returned_and_most_others_stay(harmful: set[str]) -> None:
    world = World(sorted(harmful))
    found = mixed(world)
    assert found is not None
    assert harmful <= set(skipped(found))
    assert world.accurate(found.variant)
    assert len(skipped(found)) <= 40
    assert found.variant.id == "int8-mixed"


def test_a_single_harmful_node_is_found_exactly() -> None:
    assert skipped(mixed(World(["conv37"]))) == ("conv37",)


def test_nodes_that_are_no_faster_quantized_go_back_too() -> None:
    world = World([], useless=SITES[:11])
    assert set(skipped(mixed(world))) == set(SITES[:11])


def test_groups_that_are_free_one_by_one_and_not_together_stay_quantized() -> None:
    world = World(harmful=[SITES[5]], useless=SITES[:32])
    asked: list[int] = []

    def ratios(base: tuple[Step, ...], others: Sequence[tuple[Step, ...]]) -> list[Figure]:
        found = world.ratios(base, others)
        asked.append(len(others))
        together = len(set(others[0][-1].skip) - set(base[-1].skip)) > 12
        return [Figure(value=0.97, low=0.96, high=0.98, n=20)] if together else found

    free = mixed(world)
    dear = mixed(world, replace(world.bench, ratios=ratios))
    assert len(skipped(dear)) < len(skipped(free))
    assert asked[-1] == 1


def test_with_time_for_one_guess_it_is_the_groups_that_cause_nearly_all_error() -> None:
    world = World(harmful=[SITES[5], SITES[40]])
    asked: list[Variant] = []

    def accurate(variant: Variant) -> bool:
        asked.append(variant)
        return world.accurate(variant)

    found = mixed(world, replace(world.bench, accurate=accurate, late=lambda share: bool(asked)))
    assert found is not None
    assert set(skipped(found)) >= world.harmful
    assert len(skipped(found)) <= 8, "a bisection would begin with half of all groups"


def test_where_everything_is_accurate_and_pays_nothing_is_tried() -> None:
    assert mixed(World([])) is None


def test_of_two_harmful_halves_the_cheap_one_returns_first() -> None:
    world = World(["conv3", "conv40"], useless=["conv40"])
    order: list[tuple[str, ...]] = []

    def accurate(variant: Variant) -> bool:
        order.append(variant.recipe[-1].skip)
        return "conv40" in order[-1]

    found = skipped(mixed(world, replace(world.bench, accurate=accurate)))
    assert "conv40" in found
    assert "conv3" not in found


def test_without_time_nothing_is_tried() -> None:
    assert mixed(World(["conv1"], patience=0)) is None


def test_the_number_of_builds_is_bounded_however_many_nodes_there_are() -> None:
    world = World(["conv1", "conv30", "conv63"])
    mixed(world)
    assert len(world.built) <= 40


def test_nodes_that_the_recipe_left_alone_before_stay_alone() -> None:
    already = Variant(id="int8", target=INT8.target, recipe=(Step(transform="quantize_static", skip=("conv0",)),))
    assert "conv9" in skipped(mixed(World(["conv9"]), variant=already, sites=SITES[1:]))


@pytest.mark.parametrize("count", [2, 3, 7, 8, 9, 100])
def test_groups_partition_the_nodes(count: int) -> None:
    sites = [f"n{number}" for number in range(count)]
    groups = rank(sites, lambda groups: [float(len(group)) for group in groups], lambda share: False)
    assert sorted(site for group in groups for site in group) == sorted(sites)


def test_a_group_that_cannot_be_built_counts_as_the_most_sensitive() -> None:
    world = World([])

    def errors(skips: Sequence[tuple[str, ...]]) -> list[float | None]:
        return [None if len(skip) == 63 and "conv2" not in skip else 0.1 for skip in skips]

    def accurate(variant: Variant) -> bool:
        return "conv2" in variant.recipe[-1].skip

    bench = replace(world.bench, errors=errors, accurate=accurate)
    assert "conv2" in skipped(mixed_precision(INT8, SITES, bench, holds=False))
