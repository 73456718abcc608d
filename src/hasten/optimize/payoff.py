"""Which steps of a recipe pay? Graph techniques promise the same answers, not speed: what slows a model down goes.

All prefixes of the recipe race in the same rounds on one engine, so that each step is paired with the recipe without
it. A step whose whole interval lies below 1 harms. Where it acted on several nodes, halves of them are tried apart, to
keep what pays and leave only the rest alone; otherwise the step goes. Pure but for what it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hasten.optimize.build import Builder
from hasten.spec.applied import LeftOut
from hasten.spec.measurement import Figure
from hasten.spec.variant import Step
from hasten.transform.base import TransformFailed

__all__ = ["Paying", "Race", "drop_what_does_not_pay"]

# Races several recipes by name; returns milliseconds by round, all in the same rounds.
Race = Callable[[Mapping[str, tuple[Step, ...]]], dict[str, list[float]]]
Compare = Callable[[Sequence[float], Sequence[float]], Figure]
SitesOf = Callable[[Step, tuple[Step, ...]], Sequence[str]]
# Nodes are halved so many times at the most: each halving is a race of its own.
_HALVINGS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Paying:
    """The steps that stay, and what was left out with the measured reason."""

    recipe: tuple[Step, ...]
    left_out: tuple[LeftOut, ...]


def drop_what_does_not_pay(
    steps: tuple[Step, ...],
    builder: Builder,
    *,
    race: Race,
    compare: Compare,
    sites_of: SitesOf,
    prefix: tuple[Step, ...] = (),
) -> Paying:
    """Return `steps`, which follow `prefix`, without what slows the model down.

    `compare(before, after)` is the paired speedup of `after`; `sites_of(step, before)` names the nodes on which `step`
    acts after the steps `before`.
    """
    return _Payoff(builder, race, compare, sites_of, prefix).of(steps)


class _Payoff:
    def __init__(
        self, builder: Builder, race: Race, compare: Compare, sites_of: SitesOf, prefix: tuple[Step, ...]
    ) -> None:
        self._builder = builder
        self._race = race
        self._compare = compare
        self._sites_of = sites_of
        self._prefix = prefix
        self._left_out: list[LeftOut] = []

    def of(self, steps: tuple[Step, ...]) -> Paying:
        arms = {str(length): (*self._prefix, *steps[:length]) for length in range(len(steps) + 1)}
        times = self._race(arms)
        kept = self._prefix
        for length, step in enumerate(steps, start=1):
            ratio = self._compare(times[str(length - 1)], times[str(length)])
            kept = self._narrowed(step, kept, ratio) if _harms(ratio) else self._continued(kept, step)
        return Paying(recipe=kept[len(self._prefix) :], left_out=tuple(self._left_out))

    def _narrowed(self, step: Step, before: tuple[Step, ...], ratio: Figure) -> tuple[Step, ...]:
        """`before` and as much of a harmful step as does no harm; says what was left out."""
        reason = f"does not pay: {_times(ratio)} as fast with it as without."
        part = self._harmless_part(step, before)
        if part is not None:
            reason += f" It was kept on the nodes where it does no harm; {len(part.skip)} are left alone."
        self._left_out.append(LeftOut(transform=step.transform, reason=reason))
        return before if part is None else (*before, part)

    def _harmless_part(self, step: Step, before: tuple[Step, ...]) -> Step | None:
        """The step with the harmful half of its nodes left alone, again and again; None where no part is harmless."""
        try:
            live = [site for site in self._sites_of(step, before) if site not in step.skip]
            skip = set(step.skip)
            for _ in range(_HALVINGS):
                if len(live) < 2:
                    return None
                live, skip, harmless = self._better_half(step, before, live, skip)
                if harmless:
                    return _skipping(step, skip)
        except TransformFailed:
            # A half that cannot be built alone: the step goes as a whole.
            return None
        return None

    def _better_half(
        self, step: Step, before: tuple[Step, ...], live: list[str], skip: set[str]
    ) -> tuple[list[str], set[str], bool]:
        halves = [live[: len(live) // 2], live[len(live) // 2 :]]
        arms = {str(n): (*before, _skipping(step, skip | (set(live) - set(half)))) for n, half in enumerate(halves)}
        times = self._race({"without": before, **arms})
        ratios = [self._compare(times["without"], times[str(number)]) for number in (0, 1)]
        best = max((0, 1), key=lambda number: ratios[number].value or 0.0)
        return halves[best], skip | set(halves[1 - best]), not _harms(ratios[best])

    def _continued(self, before: tuple[Step, ...], step: Step) -> tuple[Step, ...]:
        """`before` and `step`, unless `step` stood on one that is gone now and applies no longer."""
        try:
            self._builder.build_recipe((*before, step))
        except TransformFailed as error:
            self._left_out.append(LeftOut(transform=step.transform, reason=error.message))
            return before
        return (*before, step)


def _skipping(step: Step, skip: set[str]) -> Step:
    return Step(transform=step.transform, options=step.options, skip=tuple(sorted(skip)))


def _harms(ratio: Figure) -> bool:
    return ratio.high is not None and ratio.high < 1.0


def _times(ratio: Figure) -> str:
    return f"{ratio.value:.2f} times ({ratio.low:.2f} to {ratio.high:.2f})"
