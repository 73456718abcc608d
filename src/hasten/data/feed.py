"""From samples to what a model takes: add the batch axis where the model has one, stack, and take outputs apart
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hasten.data.dataset import Arrays, Subset
from hasten.errors import DataError
from hasten.spec.signature import Signature

__all__ = ["adds_batch_axis", "check_fits", "feed", "one_of_each_shape", "sample_for", "shape_key", "unbatch"]


def adds_batch_axis(signature: Signature, sample: Arrays) -> bool:
    """Whether the model's inputs have one axis more than the sample: then the first is the batch axis."""
    for spec in signature.inputs:
        array = sample.get(spec.name)
        if array is not None:
            return len(spec.shape) == np.ndim(array) + 1
    return False


def sample_for(signature: Signature, data: Subset, position: int) -> Arrays:
    """Return one sample as a model of this signature takes it: raw pixels where preprocessing is in its graph."""
    preprocess = data.dataset.preprocess
    if preprocess is not None:
        spec = signature.input(preprocess.input)
        if spec is not None and spec.dtype == "UINT8":
            return data.raw(position)
    return data.inputs(position)


def shape_key(sample: Arrays) -> str:
    """Equal for samples whose arrays have the same names and shapes: those can share a batch."""
    return ";".join(f"{name}{np.shape(array)}" for name, array in sorted(sample.items()))


def one_of_each_shape(samples: Sequence[Arrays]) -> list[int]:
    """Return the first place of each shape among `samples`: what an engine must have met to know them all."""
    places: dict[str, int] = {}
    for place, sample in enumerate(samples):
        places.setdefault(shape_key(sample), place)
    return list(places.values())


def feed(signature: Signature, samples: Sequence[Arrays]) -> dict[str, np.ndarray[Any, Any]]:
    """Return the model's inputs for one or more samples. More than one needs a batch axis and equal shapes."""
    first = samples[0]
    if not adds_batch_axis(signature, first):
        assert len(samples) == 1, "samples without a batch axis run one by one"
        # Not ascontiguousarray, which gives a tensor without dimensions one.
        return {name: np.asarray(array, order="C") for name, array in first.items()}
    return {name: np.stack([np.asarray(sample[name]) for sample in samples]) for name in first}


def unbatch(signature: Signature, sample: Arrays, outputs: Arrays) -> Arrays:
    """Return the outputs of one sample without the batch axis that `feed` added."""
    if not adds_batch_axis(signature, sample):
        return outputs
    return {name: array[0] for name, array in outputs.items()}


def check_fits(signature: Signature, sample: Arrays, where: str) -> None:
    """Raise `DataError` where a sample does not fit the model, saying which input and how."""
    problem = signature.problem(feed(signature, [sample]))
    if problem:
        raise DataError(
            f"{where} does not fit the model: {problem}",
            remedy="Samples carry no batch axis: each is one item, shaped as the model's input without the first axis.",
        )
