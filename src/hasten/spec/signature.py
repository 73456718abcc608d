"""The signature of a model: what goes in and what comes out."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hasten.spec.tensor import NUMPY_NAMES, TensorSpec
from hasten.spec.values import Value

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Signature"]


class Signature(Value, frozen=True):
    """Names, element types and shapes of all inputs and outputs, in the model's own order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def input(self, name: str) -> TensorSpec | None:
        """Return the input called `name`, if there is one."""
        return next((spec for spec in self.inputs if spec.name == name), None)

    @property
    def leading_axis_is_free(self) -> bool:
        """Whether every input and output leaves its first dimension open.

        This is necessary for batching, not sufficient: the open axis may be time. `hasten.measure.batching` proves it.
        """
        return all(spec.shape and isinstance(spec.shape[0], str) for spec in (*self.inputs, *self.outputs))

    def problem(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> str | None:
        """Say in words why `inputs` do not fit, or return None. Checks names, element types and shapes."""
        names = [spec.name for spec in self.inputs]
        unknown = sorted(set(inputs) - set(names))
        if unknown:
            return f"The input {unknown[0]!r} is unknown; the model takes: {', '.join(names)}."
        for spec in self.inputs:
            if spec.name not in inputs:
                return f"The input {spec.name!r} is missing; the model takes: {', '.join(names)}."
            array = inputs[spec.name]
            if _name_of(array.dtype) != NUMPY_NAMES[spec.dtype]:
                return (
                    f"The input {spec.name!r} has type {array.dtype.name}, "
                    f"the model takes {spec.dtype} ({NUMPY_NAMES[spec.dtype]})."
                )
            trouble = spec.shape_problem(tuple(array.shape))
            if trouble:
                return f"The input {spec.name!r} {trouble}."
        return None


@functools.lru_cache(64)
def _name_of(dtype: np.dtype[Any]) -> str:
    """numpy makes the name anew each time, which takes longer than all other checks of a small tensor."""
    return dtype.name
