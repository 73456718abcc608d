"""Tensors as the gRPC protocol carries them beside raw bytes: one typed list of values for each tensor.

Which list belongs to which element type is the protocol's table; FP16 and BF16 have none and travel raw only.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hasten.spec.tensor import NUMPY_NAMES, DType
from hasten.wire.base import invalid
from hasten.wire.tensors import Array

__all__ = ["fill_contents", "from_contents", "has_contents"]

# The list of each element type, and the numpy type of its values. What is narrower on the tensor is checked.
_FIELDS: dict[DType, tuple[str, str]] = {
    "BOOL": ("bool_contents", "bool"),
    "INT8": ("int_contents", "int32"), "INT16": ("int_contents", "int32"), "INT32": ("int_contents", "int32"),
    "INT64": ("int64_contents", "int64"),
    "UINT8": ("uint_contents", "uint32"), "UINT16": ("uint_contents", "uint32"), "UINT32": ("uint_contents", "uint32"),
    "UINT64": ("uint64_contents", "uint64"),
    "FP32": ("fp32_contents", "float32"), "FP64": ("fp64_contents", "float64"),
    "BYTES": ("bytes_contents", "object"),
}  # fmt: skip


def has_contents(dtype: DType) -> bool:
    """Whether tensors of this type can travel as typed values at all."""
    return dtype in _FIELDS


def from_contents(name: str, dtype: DType, shape: tuple[int, ...], contents: Any) -> Array:
    """Return the array of an `InferTensorContents`. Raises `RequestError` where list, count or range do not fit."""
    if dtype not in _FIELDS:
        raise invalid(f"The input {name!r} is {dtype}, which has no typed contents; use raw_input_contents.")
    field, wide = _FIELDS[dtype]
    others = [other.name for other, _ in contents.ListFields() if other.name != field]
    if others:
        raise invalid(f"The input {name!r} is {dtype} and has {others[0]}; that type travels in {field}.")
    values = getattr(contents, field)
    if len(values) != math.prod(shape):
        raise invalid(f"The input {name!r} has {len(values)} elements; its shape needs {math.prod(shape)}.")
    if dtype == "BYTES":
        items = np.empty(len(values), dtype=object)
        items[:] = list(values)
        return items.reshape(shape)
    array = np.fromiter(values, dtype=wide, count=len(values))
    return _narrowed(name, dtype, array).reshape(shape)


def fill_contents(contents: Any, array: Array, dtype: DType) -> None:
    """Write an array into an `InferTensorContents`, row-major."""
    field, _ = _FIELDS[dtype]
    values: list[Any] = array.ravel().tolist()
    if dtype == "BYTES":
        values = [item if isinstance(item, bytes) else str(item).encode() for item in values]
    getattr(contents, field).extend(values)


def _narrowed(name: str, dtype: DType, array: Array) -> Array:
    kind = np.dtype(NUMPY_NAMES[dtype])
    if kind.kind in "iu" and array.dtype != kind and array.size:
        bounds = np.iinfo(kind)
        if int(array.min()) < bounds.min or int(array.max()) > bounds.max:
            raise invalid(f"The data of {name!r} holds a value that is no {dtype}.")
    return array.astype(kind, copy=False)
