"""Whether inputs fit a signature, decided in a microsecond or two: it stands before every run.

`Signature.problem` finds the words. It takes longer than a tiny model, so it is asked only when something is wrong.
"""

from __future__ import annotations

import numpy as np

from hasten.engine.base import Tensors
from hasten.errors import EngineRunError
from hasten.spec.signature import Signature
from hasten.spec.tensor import NUMPY_NAMES

__all__ = ["Fit"]


class Fit:
    """A signature, prepared for checking."""

    def __init__(self, engine: str, signature: Signature) -> None:
        self._engine = engine
        self._signature = signature
        self._wanted = [
            (
                spec.name,
                np.dtype(NUMPY_NAMES[spec.dtype]),
                len(spec.shape),
                [(axis, dim) for axis, dim in enumerate(spec.shape) if isinstance(dim, int)],
            )
            for spec in signature.inputs
        ]

    def check(self, inputs: Tensors) -> None:
        """Raise `EngineRunError` with the first problem, if there is one."""
        if self._fits(inputs):
            return
        problem = self._signature.problem(inputs)
        if problem:
            raise EngineRunError(f"{self._engine} cannot run this: {problem}")
        # The type is right by its name, so the order of its bytes is not. A runtime would read other numbers.
        raise EngineRunError(
            f"{self._engine} cannot run this: an input has its bytes in the order of another processor.",
            remedy="Convert it: array.astype(array.dtype.newbyteorder('=')).",
        )

    def _fits(self, inputs: Tensors) -> bool:
        if len(inputs) != len(self._wanted):
            return False
        for name, dtype, axes, fixed in self._wanted:
            array = inputs.get(name)
            if array is None or array.dtype != dtype or array.ndim != axes:
                return False
            for axis, size in fixed:
                if array.shape[axis] != size:
                    return False
        return True
