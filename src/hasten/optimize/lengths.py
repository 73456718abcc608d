"""The few lengths that sequences are fitted to, by how long the data's own are. Sees calibration samples only."""

from __future__ import annotations

import numpy as np

from hasten.data.dataset import Samples
from hasten.data.lengths import buckets_for, is_padding_mask
from hasten.model.base import Model
from hasten.optimize.recipes import may_be_padded

__all__ = ["lengths_for"]

# More lengths waste fewer positions and take longer to load: a quarter of a second each for a small encoder.
_MOST, _MULTIPLE = 8, 4


def lengths_for(model: Model, samples: Samples) -> tuple[int, ...]:
    """Return the lengths worth a graph of their own; empty where the model takes no token sequences with a mask, as
    `trim_padding` and `Runtime.lengths` do.
    """
    if model.format != "onnx" or not may_be_padded(model) or not len(samples):
        return ()
    masks = [spec.name for spec in model.signature.inputs if "mask" in spec.name.lower()]
    if len(masks) != 1 or not is_padding_mask(masks[0], samples):
        return ()
    held = [int(np.count_nonzero(samples.inputs(at)[masks[0]])) for at in range(len(samples))]
    return buckets_for(held, _MOST, _MULTIPLE)
