"""Does stacking samples leave the answers unchanged? Proven before a server is allowed to do it.

An open first dimension may be time, a graph may normalize over it, a reshape may mix it: the signature cannot
tell. So a few samples are run one by one and stacked, and compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hasten.data.dataset import Arrays, Subset
from hasten.data.feed import adds_batch_axis, feed, sample_for
from hasten.errors import EngineError
from hasten.measure.base import Arm

__all__ = ["MAX_BATCH", "max_batch"]

MAX_BATCH = 16
_PROBES = 3
# Kernels for larger batches add up in another order; more than this share of the output's scale is a different
# answer.
_TOLERANCE = 1e-3


def max_batch(arm: Arm, data: Subset) -> int:
    """Return the largest batch that serving may form: `MAX_BATCH` where stacking is proven harmless, else 1."""
    samples = [sample_for(arm.signature, data, i) for i in range(min(_PROBES, len(data)))]
    stackable = arm.signature.leading_axis_is_free and adds_batch_axis(arm.signature, samples[0])
    if not stackable or len(samples) < 2 or not _same_shapes(samples):
        return 1
    try:
        together = arm.run(feed(arm.signature, samples))
    except EngineError:
        return 1
    for row, sample in enumerate(samples):
        for name, alone in arm.run(feed(arm.signature, [sample])).items():
            stacked = together[name]
            if stacked.shape[:1] != (len(samples),) or not _close(alone, stacked[row : row + 1]):
                return 1
    return MAX_BATCH


def _same_shapes(samples: Sequence[Arrays]) -> bool:
    shapes = [{name: np.shape(array) for name, array in sample.items()} for sample in samples]
    return all(shape == shapes[0] for shape in shapes)


def _close(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    if a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    scale = float(np.abs(a[np.isfinite(a)]).max(initial=0.0)) or 1.0
    return bool(np.allclose(a, b, rtol=0, atol=_TOLERANCE * scale, equal_nan=True))
