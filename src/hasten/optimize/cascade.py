"""Cascades: which close calls must be computed again for the accuracy bound to hold, and what that makes of a variant.

A format that is much faster and loses too many answers loses close calls. Computing these again costs their share of
the time, and everything else stays as fast as it was. More of them make it likelier that the claim is proven, and the
variant slower: the share is the one with the highest expected speed, where a claim that fails leaves the reference.
Where the bound is likely to hold without any, it is the smallest share: tuning data flatter what is chosen on them.

bf16 and f16 are a hint to the engine, which computes close calls again from the same file (`Runtime.cascade_below`);
int8 is in the file, so that the file holds both forms (the technique `cascade`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from hasten.measure.margins import Margins
from hasten.spec.variant import Step, Variant

__all__ = ["SHARES", "can_cascade", "cascading", "is_cascade", "limit_for", "plain_of"]

# Shares of the samples that may be computed again. Beyond the last, little is left of what the format gains, and the
# middle time of a prediction would no longer stand for most of them.
SHARES = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25)
# A claim that fails costs the trust in those that do not: shares with a chance below the first count only where none is
# above, and those below the second not at all.
_LIKELY, _POSSIBLE = 0.75, 0.5
_TECHNIQUE = "cascade"
_HINTS = ("bf16", "f16")
_IN_FILE = ("quantize_static", "quantize_dynamic")


def limit_for(margins: Margins, chance: Callable[[float], float], gain: float, again: float) -> float | None:
    """Return the margin below which answers are to be computed again; None where no share is likely to be enough.

    `chance` tells of a margin how likely the claim is to be proven with it. The candidate is `gain` times as fast as
    the reference without any computed again, and one more takes `again` times as long as with the reference.
    """
    chances = {limit: chance(limit) for limit in map(margins.below, SHARES) if limit > 0}

    def expected(limit: float) -> float:
        speed = 1 / (1 / gain + margins.share_below(limit) * again)
        return chances[limit] * speed + 1 - chances[limit]

    likely = [limit for limit in chances if chances[limit] >= _LIKELY]
    if likely:
        return max(likely, key=expected)
    return max((limit for limit in chances if chances[limit] >= _POSSIBLE), key=lambda one: chances[one], default=None)


def is_cascade(variant: Variant) -> bool:
    """Whether close calls are computed again."""
    return variant.target.runtime.cascade_below > 0 or any(s.transform == _TECHNIQUE for s in variant.recipe)


def can_cascade(variant: Variant, honours: Collection[str]) -> bool:
    """Whether `cascading` knows how, for an engine that honours these knobs."""
    if is_cascade(variant):
        return False
    if variant.target.precision in _HINTS:
        return "cascade_below" in honours
    last = variant.recipe[-1].transform if variant.recipe else ""
    return variant.target.precision == "int8" and last in _IN_FILE


def cascading(variant: Variant, limit: float) -> Variant:
    """The variant that computes answers with a margin below `limit` again."""
    # Few digits: the limit is shown to people, and is no more exact than the samples that it comes from.
    below = float(f"{limit:.3g}")
    target, recipe = variant.target, variant.recipe
    if target.precision in _HINTS:
        runtime = msgspec.structs.replace(target.runtime, cascade_below=below)
        target = msgspec.structs.replace(target, runtime=runtime)
    else:
        last = recipe[-1]
        options = {"of": last.transform, "below": below, **last.options}
        recipe = (*recipe[:-1], Step(transform=_TECHNIQUE, options=options, skip=last.skip))
    return Variant(id=f"{variant.id}-cascade", target=target, recipe=recipe)


def plain_of(recipe: tuple[Step, ...]) -> tuple[Step, ...]:
    """The recipe of what answers first in a cascade that is in the file; any other recipe as it is."""
    if not recipe or recipe[-1].transform != _TECHNIQUE:
        return recipe
    last = recipe[-1]
    options = {name: value for name, value in last.options.items() if name not in ("of", "below")}
    return (*recipe[:-1], Step(transform=str(last.options.get("of", _IN_FILE[0])), options=options, skip=last.skip))
