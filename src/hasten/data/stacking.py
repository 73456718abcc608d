"""Does stacking samples leave the answers unchanged? To be proven before anybody relies on it.

An open first dimension may be time, a graph may normalize over it, a reshape may mix it: the signature cannot tell. So
a few samples are run one by one and stacked, and compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hasten.data.dataset import Arrays
from hasten.data.feed import adds_batch_axis, feed
from hasten.spec.signature import Signature

__all__ = ["PROBES", "rows_are_independent"]

# So many samples tell.
PROBES = 3
# Kernels for larger batches add up in another order; more than this share of the output's scale is a different answer.
_TOLERANCE = 1e-3


def rows_are_independent(
    signature: Signature, samples: Sequence[Arrays], run: Callable[[Arrays], Mapping[str, np.ndarray[Any, Any]]]
) -> bool:
    """Whether `run` answers each of `samples` in a batch of all as it does alone. False where they cannot be stacked,
    or are fewer than two.
    """
    if len(samples) < 2 or not signature.leading_axis_is_free or not adds_batch_axis(signature, samples[0]):
        return False
    if not _same_shapes(samples):
        return False
    together = run(feed(signature, samples))
    for row, sample in enumerate(samples):
        for name, alone in run(feed(signature, [sample])).items():
            stacked = together[name]
            if stacked.shape[:1] != (len(samples),) or not _close(alone, stacked[row : row + 1]):
                return False
    return True


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
