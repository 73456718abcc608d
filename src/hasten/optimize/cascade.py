"""A cascade over precision: which close calls must be computed again in f32 for the accuracy bound to hold.

A format that is much faster and loses too many answers loses close calls. Computing these again costs their share of
the time, and everything else stays as fast as it was. The share is the next larger one to the smallest whose accuracy
change, with the reference's answers in the place of close calls, is likely to be within the bound: tuning data flatter
what is chosen on them, and a claim that fails costs more than some close calls that would have been right. Where the
bound is likely to hold without any, it is the smallest share, for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from hasten.measure.margins import Margins
from hasten.spec.measurement import Figure
from hasten.spec.variant import Variant

__all__ = ["SHARES", "cascading", "limit_for"]

# Shares of the samples that may be computed again. Beyond the last, little is left of what the format gains, and the
# middle time of a prediction would no longer stand for most of them.
SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25)


def limit_for(margins: Margins, holds: Callable[[Figure], bool]) -> float | None:
    """Return the margin below which answers are to be computed again; None where no share is enough.

    `holds` tells of a change of accuracy whether the bound is likely to be proven with it.
    """
    limits = [margins.below(share) for share in SHARES]
    if limits[0] > 0 and holds(margins.change_with(0.0)):
        return limits[0]
    for limit, next_one in zip(limits, [*limits[1:], limits[-1]], strict=True):
        if limit > 0 and holds(margins.change_with(limit)):
            return next_one
    return None


def cascading(variant: Variant, limit: float) -> Variant:
    """The variant that computes answers with a margin below `limit` again."""
    # Few digits: the limit is shown to people, and is no more exact than the samples that it comes from.
    runtime = msgspec.structs.replace(variant.target.runtime, cascade_below=float(f"{limit:.3g}"))
    target = msgspec.structs.replace(variant.target, runtime=runtime)
    return Variant(id=f"{variant.id}-cascade", target=target, recipe=variant.recipe)
