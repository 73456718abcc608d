"""ONNX Runtime on the CPU: the reference engine.

Its defaults are what most teams run today, so `Target(engine="onnxruntime")` with nothing else set is the
reference that every speedup is measured against.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np

from hasten.engine.base import Device, Probe, Tensors
from hasten.engine.host import cores_for, environment
from hasten.errors import EngineLoadError, EngineRunError
from hasten.spec.signature import Signature
from hasten.spec.target import Format, Precision, Target
from hasten.spec.tensor import DType, TensorSpec

__all__ = ["OnnxRuntime", "OnnxRuntimeSession"]

_DTYPES: dict[str, DType] = {
    "tensor(bool)": "BOOL", "tensor(uint8)": "UINT8", "tensor(uint16)": "UINT16", "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64", "tensor(int8)": "INT8", "tensor(int16)": "INT16", "tensor(int32)": "INT32",
    "tensor(int64)": "INT64", "tensor(float16)": "FP16", "tensor(float)": "FP32", "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}  # fmt: skip


class OnnxRuntime:
    """The engine. Only the CPU provider is driven so far; others are for later engines' work."""

    name = "onnxruntime"
    formats: frozenset[Format] = frozenset({"onnx"})
    honours: frozenset[str] = frozenset()

    def probe(self) -> Probe:
        """CPU with f32, and int8 through quantized graphs. bf16 kernels exist in this runtime only on Arm."""
        return Probe(
            engine=self.name,
            version=importlib.metadata.version("onnxruntime"),
            devices=(Device(name="CPU", hardware="CPU", detail=environment().processor, precisions=("f32", "int8")),),
        )

    def load(self, model: Path, target: Target) -> OnnxRuntimeSession:
        """Load an ONNX file. `target.threads` sets the intra-operator threads; 0 keeps the runtime's default."""
        import onnxruntime as ort

        if target.device != "CPU":
            raise EngineLoadError(
                f"onnxruntime is driven on CPU only here, not {target.device}.",
                remedy="Choose device CPU.",
            )
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # The runtime's own default is one thread for each physical core.
        threads = target.threads or environment().cores_physical
        options.intra_op_num_threads = threads
        cores = cores_for(threads) if target.pin else []
        if cores:
            # The calling thread works too and is not the runtime's to pin: whoever owns it does (hasten.engine.worker).
            # Cores are counted from 1 here.
            places = ";".join(str(core + 1) for core in cores[1:])
            options.add_session_config_entry("session.intra_op_thread_affinities", places)
        for key, value in target.options.items():
            options.add_session_config_entry(key, str(value))
        try:
            session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise EngineLoadError(
                f"onnxruntime refused {model.name}: {_short(error)}",
                remedy="Check the file with: hasten inspect " + model.name,
            ) from error
        return OnnxRuntimeSession(session, target.precision)


class OnnxRuntimeSession:
    """A loaded ONNX Runtime session. Runs are thread-safe."""

    def __init__(self, session: Any, wanted: Precision) -> None:
        self._session: Any = session
        self._signature = Signature(
            inputs=tuple(_spec(node) for node in session.get_inputs()),
            outputs=tuple(_spec(node) for node in session.get_outputs()),
        )
        self._outputs = [spec.name for spec in self._signature.outputs]
        # The CPU provider computes what the graph says: quantized graphs in int8, the rest in f32. There is no silent
        # change of precision to read back; "int8" is a promise of the transform that made the graph.
        self._precision: Precision = "int8" if wanted == "int8" else "f32"

    @property
    def signature(self) -> Signature:
        """Inputs and outputs as the runtime sees them."""
        return self._signature

    @property
    def precision(self) -> Precision:
        """f32, or int8 for a quantized graph."""
        return self._precision

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        """Run one batch. Raises `EngineRunError`."""
        feed = {name: _to_runtime(array) for name, array in inputs.items()}
        try:
            values = self._session.run(self._outputs, feed)
        except Exception as error:
            raise EngineRunError(f"onnxruntime failed: {_short(error)}") from error
        return dict(zip(self._outputs, (_from_runtime(np.asarray(value)) for value in values), strict=True))

    def close(self) -> None:
        """Drop the session; the runtime frees its arena with it."""
        self._session = None


def _spec(node: Any) -> TensorSpec:
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise EngineLoadError(
            f"The tensor {node.name!r} has type {node.type}, which hasten cannot carry.",
            remedy="Export the model with plain tensors as inputs and outputs.",
        )
    shape = tuple(dim if isinstance(dim, int) else str(dim or "?") for dim in node.shape)
    return TensorSpec(name=node.name, dtype=dtype, shape=shape)


def _to_runtime(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Strings travel as bytes in hasten and as str in ONNX Runtime."""
    if array.dtype != object:
        return array
    try:
        texts = [item.decode() if isinstance(item, bytes) else str(item) for item in array.ravel()]
    except UnicodeDecodeError as error:
        raise EngineRunError("A string input is not valid UTF-8.") from error
    return np.array(texts, dtype=object).reshape(array.shape)


def _from_runtime(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.kind not in "OU":
        return array
    raw = np.empty(array.size, dtype=object)
    raw[:] = [str(item).encode() for item in array.ravel()]
    return raw.reshape(array.shape)


def _short(error: BaseException) -> str:
    """The runtime's own words on one line, without its error prefix."""
    text = " ".join(str(error).split())
    return text.removeprefix("[ONNXRuntimeError] : ")[:400]
