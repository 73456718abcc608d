"""LiteRT (TensorFlow Lite): the usual engine of TFLite files, with XNNPACK kernels on CPUs, and delegates at the edge.

A file whose shapes are fixed runs at just these; one with open dimensions is resized when an input's shape changes. One
interpreter serves one caller at a time, so `Runtime.instances` of them stand in a pool.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import queue
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hasten.engine.base import Absent, Device, Probe, Tensors, refuse_knobs
from hasten.engine.host import environment
from hasten.errors import EngineLoadError, EngineRunError
from hasten.spec.signature import Signature
from hasten.spec.target import Format, Precision, Target
from hasten.spec.tensor import DType, TensorSpec

__all__ = ["LiteRt", "LiteRtSession"]

_DTYPES: dict[str, DType] = {
    "float32": "FP32", "float16": "FP16", "float64": "FP64", "bool": "BOOL", "int8": "INT8", "int16": "INT16",
    "int32": "INT32", "int64": "INT64", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "bytes_": "BYTES", "object_": "BYTES", "str_": "BYTES",
}  # fmt: skip
# Operators that do the arithmetic, and the position of their weights among the operands.
_ARITHMETIC = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL", "CONV_3D"}
_WEIGHTS_AT = 1

# Delegates that stand between the interpreter and other hardware: the library's name on each platform.
_EDGE_TPU = {"linux": "libedgetpu.so.1", "darwin": "libedgetpu.1.dylib", "win32": "edgetpu.dll"}
_GPU = {"linux": "libtensorflowlite_gpu_delegate.so", "android": "libtensorflowlite_gpu_delegate.so"}


class LiteRt:
    """The engine."""

    name = "litert"
    formats: frozenset[Format] = frozenset({"tflite"})
    honours: frozenset[str] = frozenset({"instances"})
    # No binding (2.3), of interpreter or compiled model, reads out the profiler that the C++ library has.
    unprofiled = (
        "The Python interface of LiteRT does not give the times of operators; its C++ tool benchmark_model does "
        "(--enable_op_profiling=true)."
    )

    def probe(self) -> Probe:
        """The CPU, and each delegate whose library can really be loaded here."""
        import ai_edge_litert.interpreter  # noqa: F401  # pyright: ignore[reportUnusedImport]

        cpu = Device(name="CPU", hardware="CPU", detail=environment().processor, precisions=("f32", "int8"))
        found: list[Device] = [cpu]
        absent: list[Absent] = []
        for name, (hardware, library, precisions, remedy) in _delegates().items():
            problem = _delegate_problem(library)
            if problem is None:
                detail = f"through the delegate {library}"
                found.append(
                    Device(
                        name=name,
                        hardware=hardware,
                        detail=detail,
                        precisions=precisions,
                        support="not run on hardware",
                    )
                )
            else:
                absent.append(Absent(name=name, hardware=hardware, reason=problem, remedy=remedy))
        version = importlib.metadata.version("ai-edge-litert")
        return Probe(engine=self.name, version=version, devices=tuple(found), absent=tuple(absent))

    def load(self, model: Path, target: Target) -> LiteRtSession:
        """Load a TFLite file for CPU or through a delegate. `target.threads` 0 takes one a physical core."""
        refuse_knobs(self, target)
        if target.options:
            raise EngineLoadError(f"litert has no option {next(iter(target.options))!r}.", remedy="It takes none.")
        delegates = [] if target.device == "CPU" else [_delegate(target.device)]
        try:
            interpreters = [_interpreter(model, target, delegates) for _ in range(target.runtime.instances)]
        except Exception as error:
            raise EngineLoadError(
                f"litert refused {model.name}: {_short(error)}",
                remedy="Check the file with: hasten inspect " + model.name,
            ) from error
        return LiteRtSession(interpreters)


class LiteRtSession:
    """A pool of interpreters of one model. As many callers as there are interpreters may run at once."""

    def __init__(self, interpreters: list[Any]) -> None:
        self._pool: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for interpreter in interpreters:
            self._pool.put(interpreter)
        first = interpreters[0]
        self._inputs = {str(item["name"]): item for item in first.get_input_details()}
        self._outputs = {str(item["name"]): item for item in first.get_output_details()}
        self._signature = Signature(
            inputs=tuple(_spec(item) for item in self._inputs.values()),
            outputs=tuple(_spec(item) for item in self._outputs.values()),
        )
        self._precision: Precision = _precision_used(first)
        self._closed = False

    @property
    def signature(self) -> Signature:
        """Inputs and outputs as the runtime sees them."""
        return self._signature

    @property
    def precision(self) -> Precision:
        """What most arithmetic operators multiply in, by the types of their weights."""
        return self._precision

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        """Run one batch. Raises `EngineRunError`."""
        problem = self._signature.problem(inputs)
        if problem:
            raise EngineRunError(f"litert cannot run this: {problem}")
        with self._interpreter() as interpreter:
            try:
                for name, item in self._inputs.items():
                    self._fill(interpreter, item, inputs[name])
                interpreter.invoke()
                return {
                    name: _from_runtime(interpreter.get_tensor(item["index"])) for name, item in self._outputs.items()
                }
            except Exception as error:
                raise EngineRunError(f"litert failed: {_short(error)}") from error

    def close(self) -> None:
        """Drop the interpreters, which give back their arenas."""
        self._closed = True
        while not self._pool.empty():
            self._pool.get()

    def _fill(self, interpreter: Any, item: dict[str, Any], array: np.ndarray[Any, Any]) -> None:
        """Copy one input in; an open dimension that has another size now needs new buffers first."""
        current = tuple(interpreter._get_tensor_details(item["index"], 0)["shape"])
        if current != tuple(array.shape):
            interpreter.resize_tensor_input(item["index"], array.shape, strict=True)
            interpreter.allocate_tensors()
        interpreter.set_tensor(item["index"], np.ascontiguousarray(array))

    @contextmanager
    def _interpreter(self) -> Generator[Any]:
        if self._closed:
            raise EngineRunError("The session is closed.")
        interpreter = self._pool.get()
        try:
            yield interpreter
        finally:
            self._pool.put(interpreter)


def _interpreter(model: Path, target: Target, delegates: list[Any]) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(
        model_path=str(model),
        num_threads=target.threads or environment().cores_physical,
        experimental_delegates=delegates or None,
    )
    interpreter.allocate_tensors()
    return interpreter


def _delegates() -> dict[str, tuple[Any, str, tuple[Precision, ...], str]]:
    tpu = _EDGE_TPU.get(sys.platform, "libedgetpu.so.1")
    gpu = _GPU.get(sys.platform, "libtensorflowlite_gpu_delegate.so")
    return {
        "EDGETPU": ("TPU", tpu, ("int8",), "Plug in a Coral Edge TPU and install its runtime (libedgetpu1-std)."),
        "GPU": (
            "edge",
            gpu,
            ("f16", "f32"),
            f"Build LiteRT's GPU delegate for this platform and put {gpu} on the path.",
        ),
    }


def _delegate(device: str) -> Any:
    known = _delegates()
    if device not in known:
        raise EngineLoadError(f"litert knows no device {device!r}.", remedy=f"Choose CPU or {' or '.join(known)}.")
    from ai_edge_litert.interpreter import load_delegate

    _, library, _, remedy = known[device]
    try:
        ctypes.CDLL(library)
        return load_delegate(library)
    except (OSError, ValueError) as error:
        raise EngineLoadError(f"The delegate {library} cannot be used: {_short(error)}", remedy=remedy) from error


def _delegate_problem(library: str) -> str | None:
    """Load the delegate for real: a library without its device refuses."""
    from ai_edge_litert.interpreter import load_delegate

    try:
        # First without the wrapper, which prints a traceback of its own where the library is absent.
        ctypes.CDLL(library)
        load_delegate(library)
    except (OSError, ValueError) as error:
        return f"The delegate {library} cannot be used: {_short(error)}"
    return None


def _precision_used(interpreter: Any) -> Precision:
    counts: Counter[Precision] = Counter()
    for op in interpreter._get_ops_details():
        if op["op_name"] in _ARITHMETIC and len(op["operand_types"]) > _WEIGHTS_AT:
            kind = np.dtype(op["operand_types"][_WEIGHTS_AT]).name
            counts["int8" if kind in ("int8", "uint8") else "f16" if kind == "float16" else "f32"] += 1
    return counts.most_common(1)[0][0] if counts else "f32"


def _spec(item: dict[str, Any]) -> TensorSpec:
    kind = getattr(item["dtype"], "__name__", str(item["dtype"]))
    dtype = _DTYPES.get(kind)
    if dtype is None:
        raise EngineLoadError(
            f"The tensor {item['name']!r} has type {kind}, which hasten cannot carry.",
            remedy="Convert the model with plain tensors as inputs and outputs.",
        )
    declared = item.get("shape_signature")
    dims = declared if declared is not None and len(declared) == len(item["shape"]) else item["shape"]
    return TensorSpec(name=str(item["name"]), dtype=dtype, shape=tuple(int(d) if d >= 0 else "?" for d in dims))


def _from_runtime(array: Any) -> np.ndarray[Any, Any]:
    """Tensors come as copies; strings as objects of bytes."""
    found = np.asarray(array)
    if found.dtype.kind not in "OUS":
        return found
    raw = np.empty(found.size, dtype=object)
    raw[:] = [item if isinstance(item, bytes) else str(item).encode() for item in found.ravel()]
    return raw.reshape(found.shape)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
