"""An operator against the ceilings: the least time that they allow, its share of the time taken, and what bounds it.

The least time is that of the arithmetic or that of the memory traffic, whichever is longer (Williams, Waterman and
Patterson 2009). Where even that is less than a tenth of the time taken, neither explains it: "overhead" is the start of
kernels and threads, a kernel that does not suit the shape, or numbers that the processor computes slowly. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hasten.spec.measurement import Figure, unmeasured
from hasten.spec.profile import Bandwidth, Bound, Ceilings

__all__ = ["OVERHEAD_BELOW", "Placed", "bandwidth_for", "place"]

OVERHEAD_BELOW = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """Where an operator lies: `share` of the roofline and its `bound`, or the `reason` why that is unknown."""

    share: Figure
    bound: Bound | None
    reason: str | None = None


def place(time_us: Figure, flops: int | None, bytes_moved: int | None, ceilings: Ceilings) -> Placed:
    """Place one operator. The interval of the share is that of the time; the ceilings are taken as they are."""
    if flops is None or bytes_moved is None:
        missing = "its work" if flops is None else "what it moves"
        return _unknown(f"{missing} is unknown: the engine does not say, and no node of the model could be matched")
    compute = ceilings.compute_gflop_per_s
    bandwidth = bandwidth_for(ceilings.memory, bytes_moved)
    if compute.value is None or bandwidth is None:
        return _unknown(compute.reason or "the ceilings were not measured")
    if not time_us.value:
        return _unknown(time_us.reason or "it took less than the engine's clock can tell")
    compute_us, memory_us = flops / (compute.value * 1e3), bytes_moved / (bandwidth * 1e3)
    least = max(compute_us, memory_us)
    share = Figure(
        value=least / time_us.value,
        low=least / time_us.high if time_us.high else None,
        high=least / time_us.low if time_us.low else None,
        n=time_us.n,
    )
    if least < OVERHEAD_BELOW * time_us.value:
        return Placed(share=share, bound="overhead")
    return Placed(share=share, bound="compute" if compute_us >= memory_us else "memory")


def bandwidth_for(memory: Sequence[Bandwidth], size: int) -> float | None:
    """GB/s for a working set of `size` bytes, on straight lines between the sizes measured, both scales logarithmic."""
    points = [(item.working_set_bytes, item.gb_per_s.value) for item in memory]
    known = [(float(at), value) for at, value in points if value is not None]
    if not known:
        return None
    if size <= known[0][0]:
        return known[0][1]
    for (left, low), (right, high) in pairwise(known):
        if size <= right:
            part = math.log(size / left) / math.log(right / left)
            return low * (high / low) ** part
    return known[-1][1]


def _unknown(reason: str) -> Placed:
    return Placed(share=unmeasured(reason), bound=None, reason=reason)
