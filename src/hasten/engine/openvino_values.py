"""Tensors and ports between numpy and OpenVINO, and what this runtime does to element types on the way.

Its CPU plugin computes 64-bit integers in 32 bits and doubles in f32, whatever the model says. Integers that do not fit
are refused before they are cut off silently. Strings are refused at load: in the Python binding of the versions that
were tried (up to 2026.4), a model that returns strings corrupts the heap.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hasten.errors import EngineLoadError, EngineRunError
from hasten.spec.tensor import DType, TensorSpec

__all__ = ["from_runtime", "spec_of", "to_runtime"]

_DTYPES: dict[str, DType] = {
    "f32": "FP32", "f16": "FP16", "bf16": "BF16", "f64": "FP64", "boolean": "BOOL",
    "i8": "INT8", "i16": "INT16", "i32": "INT32", "i64": "INT64",
    "u8": "UINT8", "u16": "UINT16", "u32": "UINT32", "u64": "UINT64",
}  # fmt: skip
_INT32 = np.iinfo(np.int32)
_Array = np.ndarray[Any, Any]


def spec_of(port: Any) -> TensorSpec:
    """An input or output as the runtime describes it. Raises `EngineLoadError` for what hasten cannot carry."""
    kind = port.get_element_type().to_string()
    dtype = _DTYPES.get(kind)
    if kind == "string":
        raise EngineLoadError(
            f"The tensor {_name(port)!r} holds strings, which OpenVINO's Python binding does not carry safely.",
            remedy="Run this model on onnxruntime, or leave the work on strings out of it.",
        )
    if dtype is None:
        raise EngineLoadError(
            f"The tensor {_name(port)!r} has type {kind}, which hasten cannot carry.",
            remedy="Export the model with plain tensors as inputs and outputs.",
        )
    dims: list[int | str] = [int(d.get_length()) if d.is_static else "?" for d in port.get_partial_shape()]
    return TensorSpec(name=_name(port), dtype=dtype, shape=tuple(dims))


def to_runtime(array: _Array, spec: TensorSpec) -> Any:
    """What `infer` takes. Raises `EngineRunError` for integers that the runtime would cut off."""
    if spec.dtype in ("INT64", "UINT64"):
        _check_range(array, spec)
    if spec.dtype != "BF16":
        return array
    import openvino as ov

    return ov.Tensor(np.ascontiguousarray(array), list(array.shape), ov.Type.bf16)


def from_runtime(array: _Array, spec: TensorSpec) -> _Array:
    """An answer as hasten carries it: bfloat16 comes as its raw bits."""
    return array.view(np.uint16) if spec.dtype == "BF16" else array


def _check_range(array: _Array, spec: TensorSpec) -> None:
    if array.size and not (_INT32.min <= int(array.min()) and int(array.max()) <= _INT32.max):
        raise EngineRunError(
            f"The input {spec.name!r} holds integers beyond 32 bits, which OpenVINO would cut off.",
            remedy="Run this model on onnxruntime.",
        )


def _name(port: Any) -> str:
    """The model's own name of an input or output: compiling may give it those of tensors that were folded into it."""
    own = str(port.get_node().get_friendly_name()).partition("/sink_port_")[0]
    return own if own in port.get_names() else str(port.get_any_name())
