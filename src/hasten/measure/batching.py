"""The largest batch that a server may form, by proof that stacking samples is harmless (`data.stacking`)."""

from __future__ import annotations

from hasten.data.dataset import Subset
from hasten.data.feed import sample_for
from hasten.data.stacking import PROBES, rows_are_independent
from hasten.errors import EngineError
from hasten.measure.base import Arm

__all__ = ["MAX_BATCH", "max_batch"]

MAX_BATCH = 16


def max_batch(arm: Arm, data: Subset) -> int:
    """Return the largest batch that serving may form: `MAX_BATCH` where stacking is proven harmless, else 1."""
    samples = [sample_for(arm.signature, data, i) for i in range(min(PROBES, len(data)))]
    try:
        return MAX_BATCH if rows_are_independent(arm.signature, samples, arm.run) else 1
    except EngineError:
        return 1
