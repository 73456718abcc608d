"""Tensors between numpy and ONNX Runtime: element types, strings, bfloat16, and buffers that are bound beforehand."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from hasten.engine.base import Tensors
from hasten.errors import EngineLoadError, EngineRunError
from hasten.spec.signature import Signature
from hasten.spec.tensor import NUMPY_NAMES, DType, TensorSpec

__all__ = ["Binding", "from_runtime", "run_into", "run_typed", "spec_of", "to_runtime"]

_DTYPES: dict[str, DType] = {
    "tensor(bool)": "BOOL", "tensor(uint8)": "UINT8", "tensor(uint16)": "UINT16", "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64", "tensor(int8)": "INT8", "tensor(int16)": "INT16", "tensor(int32)": "INT32",
    "tensor(int64)": "INT64", "tensor(float16)": "FP16", "tensor(bfloat16)": "BF16", "tensor(float)": "FP32",
    "tensor(double)": "FP64", "tensor(string)": "BYTES",
}  # fmt: skip
_BFLOAT16 = 16  # TensorProto.BFLOAT16: numpy has no such type, so that it is named by ONNX's number
_Array = np.ndarray[Any, Any]


def spec_of(node: Any) -> TensorSpec:
    """An input or output as the runtime describes it. Raises `EngineLoadError` for what is no tensor of ours."""
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise EngineLoadError(
            f"The tensor {node.name!r} has type {node.type}, which hasten cannot carry.",
            remedy="Export the model with plain tensors as inputs and outputs.",
        )
    shape = tuple(dim if isinstance(dim, int) else str(dim or "?") for dim in node.shape)
    return TensorSpec(name=node.name, dtype=dtype, shape=shape)


def to_runtime(array: _Array) -> _Array:
    """Strings travel as bytes in hasten and as str in ONNX Runtime."""
    if array.dtype != object:
        return array
    try:
        texts = [item.decode() if isinstance(item, bytes) else str(item) for item in array.ravel()]
    except UnicodeDecodeError as error:
        raise EngineRunError("A string input is not valid UTF-8.") from error
    return np.array(texts, dtype=object).reshape(array.shape)


def from_runtime(array: _Array) -> _Array:
    """The way back; everything but strings is the runtime's own new array."""
    if array.dtype.kind not in "OU":
        return array
    raw = np.empty(array.size, dtype=object)
    raw[:] = [str(item).encode() for item in array.ravel()]
    return raw.reshape(array.shape)


def run_typed(session: Any, signature: Signature, inputs: Tensors) -> list[_Array]:
    """Run with values that carry ONNX's element types, which bfloat16 needs. Strings do not go this way."""
    held = {spec.name: _value(inputs[spec.name], spec) for spec in signature.inputs}
    feed = {name: value for name, (value, _) in held.items()}
    values = session.run_with_ort_values([spec.name for spec in signature.outputs], feed)
    return [_array(value, spec) for value, spec in zip(values, signature.outputs, strict=True)]


def run_into(session: Any, signature: Signature, inputs: Tensors, places: Tensors) -> None:
    """Run with outputs bound to `places`. The runtime's own errors come through, also where a shape is another one."""
    binding: Any = session.io_binding()
    # Values share the memory of their arrays, so that both are held until the run is over.
    held = [(spec.name, *_value(inputs[spec.name], spec)) for spec in signature.inputs]
    for name, value, _ in held:
        binding.bind_ortvalue_input(name, value)
    for spec in signature.outputs:
        _bind_output(binding, spec, places[spec.name])
    session.run_with_iobinding(binding)


class Binding:
    """The buffers of one caller: outputs are written where they were allocated before.

    Buffers last as long as the shapes of the inputs do. An output gets one if its dimensions are fixed or carry the
    names of dimensions of inputs; the runtime allocates the others. A buffer is copied on the way out, because the
    next run writes into it again.
    """

    def __init__(self, session: Any, signature: Signature) -> None:
        self.session = session
        self._signature = signature
        self._binding: Any = session.io_binding()
        self._shapes: tuple[tuple[int, ...], ...] = ()
        self._buffers: dict[str, _Array] = {}
        self._broken: set[str] = set()

    def run(self, inputs: Tensors) -> list[_Array]:
        """Run one batch. The runtime's own errors come through."""
        try:
            return self._once(inputs)
        except Exception:
            if not self._buffers:
                raise
        # A model may name a dimension of its output after one of its input and then give another size.
        blamed = set(self._buffers)
        self._broken |= blamed
        self._shapes = ()
        try:
            return self._once(inputs)
        except Exception:
            self._broken -= blamed
            self._shapes = ()
            raise

    @property
    def buffers(self) -> dict[str, _Array]:
        """The outputs that have a buffer now."""
        return dict(self._buffers)

    def _once(self, inputs: Tensors) -> list[_Array]:
        shapes = tuple(inputs[spec.name].shape for spec in self._signature.inputs)
        if shapes != self._shapes:
            self._bind_outputs(inputs)
            self._shapes = shapes
        # Values share the memory of their arrays, so that both are held until the run is over.
        held = [(spec.name, *_value(inputs[spec.name], spec)) for spec in self._signature.inputs]
        for name, value, _ in held:
            self._binding.bind_ortvalue_input(name, value)
        for spec in self._signature.outputs:
            if spec.name not in self._buffers:
                # Anew for each run: what the last one allocated would be taken for a buffer of this one.
                self._binding.bind_output(spec.name)
        try:
            self.session.run_with_iobinding(self._binding)
        finally:
            self._binding.clear_binding_inputs()
        return self._copies()

    def _bind_outputs(self, inputs: Tensors) -> None:
        self._binding.clear_binding_outputs()
        self._buffers = {}
        sizes = _sizes(self._signature, inputs)
        for spec in self._signature.outputs:
            shape = [dim if isinstance(dim, int) else sizes.get(dim, -1) for dim in spec.shape]
            if spec.name in self._broken or min(shape, default=1) < 1:
                continue
            buffer = self._buffers[spec.name] = np.empty(shape, NUMPY_NAMES[spec.dtype])
            _bind_output(self._binding, spec, buffer)

    def _copies(self) -> list[_Array]:
        # In the order in which they were bound: those with a buffer first.
        free = [spec for spec in self._signature.outputs if spec.name not in self._buffers]
        values = self._binding.get_outputs()[len(self._buffers) :] if free else []
        found = {spec.name: _array(value, spec) for spec, value in zip(free, values, strict=True)}
        return [
            self._buffers[spec.name].copy() if spec.name in self._buffers else found[spec.name]
            for spec in self._signature.outputs
        ]


def _bind_output(binding: Any, spec: TensorSpec, array: _Array) -> None:
    kind = _BFLOAT16 if spec.dtype == "BF16" else array.dtype.type
    binding.bind_output(spec.name, "cpu", 0, kind, array.shape, array.ctypes.data)


def _sizes(signature: Signature, inputs: Tensors) -> dict[str, int]:
    """What each named dimension is in this run; one that has two sizes is left out, as is the nameless "?"."""
    found: dict[str, set[int]] = {}
    for spec in signature.inputs:
        for dim, size in zip(spec.shape, inputs[spec.name].shape, strict=True):
            if isinstance(dim, str):
                found.setdefault(dim, set()).add(size)
    return {dim: sizes.pop() for dim, sizes in found.items() if dim != "?" and len(sizes) == 1}


def _value(array: _Array, spec: TensorSpec) -> tuple[Any, _Array]:
    """A value of the runtime, and the array whose memory it shares."""
    import onnxruntime as ort

    array = np.ascontiguousarray(array).reshape(array.shape)
    if spec.dtype == "BF16":
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16), array
    return ort.OrtValue.ortvalue_from_numpy(array), array


def _array(value: Any, spec: TensorSpec) -> _Array:
    """Copy a value out; bfloat16 as its raw bits, which the runtime does not turn into an array itself."""
    if spec.dtype != "BF16":
        return np.array(value.numpy())
    size = value.tensor_size_in_bytes()
    raw = ctypes.string_at(value.data_ptr(), size) if size else b""
    return np.frombuffer(bytearray(raw), np.uint16).reshape(value.shape())
