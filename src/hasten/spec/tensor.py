"""What a tensor is: a name, an element type and a shape.

Element types carry the names of the Open Inference Protocol v2 ("FP32", "INT64", "BYTES", ...), because both the
model and the wire need them and one vocabulary is enough.
"""

from __future__ import annotations

from typing import Literal

from hasten.spec.values import Value

__all__ = ["DTYPE_SIZES", "NUMPY_NAMES", "DType", "TensorSpec"]

DType = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
]  # fmt: skip

# The numpy dtype that carries each element type. BF16 travels as its raw 16 bits; BYTES as Python bytes objects.
NUMPY_NAMES: dict[DType, str] = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "FP16": "float16", "BF16": "uint16", "FP32": "float32", "FP64": "float64", "BYTES": "object",
}  # fmt: skip

# Bytes per element; BYTES has no fixed size.
DTYPE_SIZES: dict[DType, int] = {
    "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
    "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8,
}  # fmt: skip


class TensorSpec(Value, frozen=True):
    """One input or output of a model. A dimension is an integer if fixed, else a symbol ("batch", or "?" if
    unnamed).
    """

    name: str
    dtype: DType
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}{self._dims()}"

    def _dims(self) -> str:
        return f"[{', '.join(str(dim) for dim in self.shape)}]"

    def shape_problem(self, shape: tuple[int, ...]) -> str | None:
        """Say in words how `shape` differs from what the model takes, or return None."""
        if len(shape) != len(self.shape):
            return f"has {len(shape)} dimensions {list(shape)}, the model takes {len(self.shape)}: {self._dims()}"
        for axis, (got, want) in enumerate(zip(shape, self.shape, strict=True)):
            if isinstance(want, int) and got != want:
                return f"has {got} at axis {axis} of {list(shape)}, the model takes {want}: {self._dims()}"
        return None
