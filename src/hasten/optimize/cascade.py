"""A cascade over precision: which close calls must be computed again in f32 for the accuracy bound to hold.

A format that is much faster and loses too many answers loses close calls. Computing these again costs their share of
the time, and everything else stays as fast as it was. The share is the smallest whose accuracy change, with the
reference's answers in the place of close calls, is likely to be within the bound; the next larger one is kept ready,
since tuning data flatter the first.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from hasten.measure.margins import Margins
from hasten.spec.measurement import Figure
from hasten.spec.variant import Variant

__all__ = ["SHARES", "cascading", "limits_for"]

# Shares of the samples that may be computed again. Beyond the last, little is left of what the format gains, and the
# middle time of a prediction would no longer stand for most of them.
SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25)


def limits_for(margins: Margins, holds: Callable[[Figure], bool]) -> list[float]:
    """Return the margins of the smallest share that `holds` and of the next one; empty where none does.

    `holds` tells of a change of accuracy whether the bound is likely to be proven with it.
    """
    limits = [margins.below(share) for share in SHARES]
    for at, limit in enumerate(limits):
        if limit > 0 and holds(margins.change_with(limit)):
            return sorted(set(limits[at : at + 2]))
    return []


def cascading(variant: Variant, limit: float, number: int) -> Variant:
    """The variant that computes answers with a margin below `limit` again; `number` tells several apart."""
    # Few digits: the limit is shown to people, and is no more exact than the samples that it comes from.
    runtime = msgspec.structs.replace(variant.target.runtime, cascade_below=float(f"{limit:.3g}"))
    target = msgspec.structs.replace(variant.target, runtime=runtime)
    return Variant(id=f"{variant.id}-cascade{number}", target=target, recipe=variant.recipe)
