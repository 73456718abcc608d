"""Mixed precision with accuracy control: give back to f32 what fewer bits ruin, and what they do not speed up.

The technique (a transform with sites) knows how to leave nodes alone; the decision which ones is made here, under both
accuracy on tuning data and measured latency, within a number of builds and a deadline:

1. Sensitivity: each group of nodes is quantized alone, and the error of the model's outputs is read off. The most
   sensitive groups are split, again and again, until nodes or patience run out.
2. Price: each group returns to float alone, and what that costs in time is measured. Groups are ranked by squared error
   for that time: errors of many places add up in squares.
3. Accuracy: the smallest prefix of that ranking is sought, by bisection, whose return to float makes the accuracy bound
   likely to hold.
4. Latency: each group that is still quantized is returned to float in turn, all in the same rounds; what is not slower
   that way, each alone and then all together, stays in float, since quantizing it bought nothing.

Sources: hierarchical sensitivity ranking as in accuracy-aware quantization of NNCF and Neural Compressor; the bound on
latency is what those leave out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hasten.optimize.trials import Trial
from hasten.spec.measurement import Figure
from hasten.spec.variant import Step, Variant

__all__ = ["Bench", "Group", "mixed_precision", "rank"]

Group = tuple[str, ...]
# The first partition, and how many groups are quantized alone in all: each is one build and a few runs.
_FIRST_GROUPS = 8
_MOST_GROUPS = 20
# So many of the worst groups are split before errors are asked for again.
_SPLIT = 3
# Groups whose price is worth knowing: the worst ones, up to the last twentieth of all squared error.
_MOST_WEIGHED, _HARDLY = 6, 0.05
# Shares of the time after which groups are split no further, and prices asked no more: the rest is for finding a mix.
_RANKED, _WEIGHED = 0.45, 0.6
# Groups that may race back to float at once: each is a loaded model.
_MOST_ARMS = 6
# A share of the model's time below which a group's return counts as equally cheap: races tell no less.
_CHEAP = 0.01
# Shares of the squared error that may be left in a model that is accurate enough, the likeliest first.
_LIKELY = (0.01, 0.1, 0.001)
# The price of what could not be timed.
_DEAR = 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What the loop needs of the outside world.

    `errors(skips)` returns the error of the last step with each of these sets of sites left alone (None: it cannot be
    built so); asking for several at once is cheaper. `accurate(variant)` tells whether the accuracy bound is likely to
    hold on tuning data; `judge(variant)` measures everything there, which takes longer. `ratios(base, others)` races
    recipes and returns how many times as fast as `base` each of `others` is. `late(share)` is true when more than
    this share of the time for it is over.
    """

    errors: Callable[[Sequence[Group]], list[float | None]]
    judge: Callable[[Variant], Trial]
    accurate: Callable[[Variant], bool]
    ratios: Callable[[tuple[Step, ...], Sequence[tuple[Step, ...]]], list[Figure]]
    late: Callable[[float], bool]


def mixed_precision(variant: Variant, sites: Sequence[str], bench: Bench, *, holds: bool) -> Trial | None:
    """Return the trial of the best mix of `variant`, whose last step quantizes `sites`; None where nothing could be
    gained or there was no time. `holds` says that it is accurate enough as it is.
    """
    if len(sites) < 2 or bench.late(1.0):
        return None
    search = _Search(variant, sites, bench)
    skip: Group = ()
    if not holds:
        found = search.smallest_return(search.by_worth(rank(sites, search.errors_alone, bench.late)))
        if found is None:
            return None
        skip = found
    slow = search.bought_nothing(skip)
    if slow and search.is_free(skip, slow) and bench.accurate(search.with_skip(skip + slow)):
        skip += slow
    return bench.judge(search.with_skip(skip)) if skip else None


def rank(
    sites: Sequence[str], errors_alone: Callable[[Sequence[Group]], list[float]], late: Callable[[float], bool]
) -> list[Group]:
    """Partition `sites` into groups, the most sensitive first, by the error that each causes alone."""
    size = -(-len(sites) // _FIRST_GROUPS)
    first = [tuple(sites[at : at + size]) for at in range(0, len(sites), size)]
    errors = dict(zip(first, errors_alone(first), strict=True))
    while len(errors) < _MOST_GROUPS and not late(_RANKED):
        splittable = [group for group in errors if len(group) > 1 and errors[group] > 0]
        worst = sorted(splittable, key=lambda group: -errors[group])[: min(_SPLIT, _MOST_GROUPS - len(errors))]
        if not worst:
            break
        parts = [part for group in worst for part in (group[: len(group) // 2], group[len(group) // 2 :])]
        for group in worst:
            del errors[group]
        errors |= dict(zip(parts, errors_alone(parts), strict=True))
    return sorted(errors, key=lambda group: -errors[group])


class _Search:
    """Recipes of one variant with other nodes left in float."""

    def __init__(self, variant: Variant, sites: Sequence[str], bench: Bench) -> None:
        self._variant = variant
        self._sites = tuple(sites)
        self._bench = bench
        self._own_skip = set(variant.recipe[-1].skip)
        self._errors: dict[Group, float] = {}

    def recipe(self, skip: Group) -> tuple[Step, ...]:
        step = self._variant.recipe[-1]
        left = self._own_skip | set(skip)
        ordered = tuple(site for site in self._sites if site in left)
        return (*self._variant.recipe[:-1], Step(transform=step.transform, options=step.options, skip=ordered))

    def with_skip(self, skip: Group) -> Variant:
        return Variant(id=f"{self._variant.id}-mixed", target=self._variant.target, recipe=self.recipe(skip))

    def errors_alone(self, groups: Sequence[Group]) -> list[float]:
        """The error where only each of `groups` is quantized; a group that cannot be is the most sensitive of all."""
        skips = [self.recipe(tuple(site for site in self._sites if site not in group))[-1].skip for group in groups]
        errors = [math.inf if error is None else error for error in self._bench.errors(skips)]
        self._errors |= dict(zip(groups, errors, strict=True))
        return errors

    def by_worth(self, groups: Sequence[Group]) -> list[Group]:
        """Groups by squared error for the time that their return to float costs. Those that hardly matter, and all
        where time is short, stay in their order by error.
        """
        squares = [self._errors[group] ** 2 for group in groups]
        finite = sum(square for square in squares if math.isfinite(square))
        rest = [finite - sum(s for s in squares[:at] if math.isfinite(s)) for at in range(len(groups))]
        weighed = [group for group, left in zip(groups, rest, strict=True) if left > _HARDLY * finite][:_MOST_WEIGHED]
        prices: dict[Group, float] = {}
        for at in range(0, len(weighed), _MOST_ARMS):
            if self._bench.late(_WEIGHED):
                return list(groups)
            some = weighed[at : at + _MOST_ARMS]
            ratios = self._bench.ratios(self.recipe(()), [self.recipe(group) for group in some])
            for group, ratio in zip(some, ratios, strict=True):
                prices[group] = max(1 / ratio.value - 1 if ratio.value else _DEAR, _CHEAP)
        weighed.sort(key=lambda group: -(self._errors[group] ** 2) / prices[group])
        return [*weighed, *(group for group in groups if group not in prices)]

    def smallest_return(self, groups: Sequence[Group]) -> Group | None:
        """Bisect for the fewest groups, from the first on, whose return makes the model accurate enough.

        Time may run out before it ends: the likeliest sizes go first.
        """
        low, high = 0, len(groups)  # low fails; all in float is right by definition, and no longer quantized
        best: Group | None = None
        guesses = [guess for guess in self.guesses(groups) if low < guess < high]
        while high - low > 1 and not self._bench.late(1.0):
            middle = next((guess for guess in guesses if low < guess < high), (low + high) // 2)
            skip = tuple(site for group in groups[:middle] for site in group)
            if self._bench.accurate(self.with_skip(skip)):
                high, best = middle, skip
            else:
                low = middle
        return best

    def guesses(self, groups: Sequence[Group]) -> list[int]:
        """How many groups, from the first on, cause all squared error but a hundredth, a tenth, a thousandth."""
        squares = [self._errors[group] ** 2 for group in groups]
        whole = sum(square for square in squares if math.isfinite(square))
        left = [sum(square for square in squares[at:] if math.isfinite(square)) for at in range(len(groups) + 1)]
        return [next(at for at, rest in enumerate(left) if rest <= share * whole) for share in _LIKELY]

    def bought_nothing(self, skip: Group) -> Group:
        """Sites whose return to float does not slow the model down, tried in neighbourhoods of the graph."""
        live = [site for site in self._sites if site not in skip and site not in self._own_skip]
        if not live or self._bench.late(1.0):
            return ()
        size = -(-len(live) // _MOST_ARMS)
        groups = [tuple(live[at : at + size]) for at in range(0, len(live), size)]
        ratios = self._bench.ratios(self.recipe(skip), [self.recipe(skip + group) for group in groups])
        return tuple(
            site
            for group, ratio in zip(groups, ratios, strict=True)
            if ratio.value is not None and ratio.value >= 1.0
            for site in group
        )

    def is_free(self, skip: Group, more: Group) -> bool:
        """Whether returning `more` as a whole does not slow the model down: what noise let pass one by one adds up."""
        if self._bench.late(1.0):
            return False
        [ratio] = self._bench.ratios(self.recipe(skip), [self.recipe(skip + more)])
        return ratio.value is not None and ratio.value >= 1.0
