"""ONNX Runtime: the reference engine of ONNX files, on CPUs and through its execution providers.

Its defaults are what most teams run today, so `Target(engine="onnxruntime")` with nothing else set is the
reference that every speedup is measured against.
"""

from __future__ import annotations

import importlib.metadata
import queue
import threading
from pathlib import Path
from typing import Any

import numpy as np

from hasten.engine.base import Probe, Tensors, refuse_knobs
from hasten.engine.host import cores_for, environment
from hasten.engine.onnxruntime_precision import precision_of
from hasten.engine.onnxruntime_providers import PROVIDERS, Provider, found_and_absent, provider_for
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
    """The engine. On devices other than the CPU it refuses a session that fell back to the CPU."""

    name = "onnxruntime"
    formats: frozenset[Format] = frozenset({"onnx"})
    honours: frozenset[str] = frozenset(
        {
            "instances",
            "execution",
            "inter_threads",
            "arena",
            "memory_pattern",
            "io_binding",
            "share_weights",
            "flush_denormals",
            "spin",
            "batch",
        }
    )

    def probe(self) -> Probe:
        """Every provider on which a session can be made. bf16 kernels for CPUs exist in this runtime only on Arm."""
        found, absent = found_and_absent()
        version = importlib.metadata.version("onnxruntime")
        return Probe(engine=self.name, version=version, devices=found, absent=absent)

    def load(self, model: Path, target: Target) -> OnnxRuntimeSession:
        """Load an ONNX file. `target.threads` sets the intra-operator threads; 0 keeps the runtime's default."""
        refuse_knobs(self, target)
        provider = provider_for(target.device)
        if provider is None:
            known = ", ".join(row.device for row in PROVIDERS)
            raise EngineLoadError(f"onnxruntime knows no device {target.device!r}.", remedy=f"Choose one of: {known}.")
        count = 1 if target.runtime.share_weights else target.runtime.instances
        try:
            sessions = [_session(model, _options(model, target), provider) for _ in range(count)]
        except EngineLoadError:
            raise
        except Exception as error:
            raise EngineLoadError(
                f"onnxruntime refused {model.name}: {_short(error)}",
                remedy="Check the file with: hasten inspect " + model.name,
            ) from error
        return OnnxRuntimeSession(sessions, model, target, provider)


class OnnxRuntimeSession:
    """A loaded model: one session that all callers share, or one for each caller with threads of its own."""

    def __init__(self, sessions: list[Any], model: Path, target: Target, provider: Provider) -> None:
        self._sessions: list[Any] = sessions
        self._model = model
        self._target = target
        self._provider = provider
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for session in sessions:
            self._free.put(session)
        self._signature = Signature(
            inputs=tuple(_spec(node) for node in sessions[0].get_inputs()),
            outputs=tuple(_spec(node) for node in sessions[0].get_outputs()),
        )
        self._outputs = [spec.name for spec in self._signature.outputs]
        self._precision: Precision | None = None
        self._local = threading.local()
        if target.runtime.io_binding:
            _refuse_strings(self._signature)

    @property
    def signature(self) -> Signature:
        """Inputs and outputs as the runtime sees them."""
        return self._signature

    @property
    def precision(self) -> Precision:
        """What most arithmetic operators of the optimized graph compute in."""
        if self._precision is None:
            self._precision = precision_of(self._model, lambda model, options: _session(model, options, self._provider))
        return self._precision

    @property
    def caller_core(self) -> int | None:
        """The core that the calling thread should stay on: it does its share of the work."""
        cores = _cores(self._target)
        return cores[0] if cores else None

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        """Run one batch. Raises `EngineRunError`."""
        feed = {name: _to_runtime(array) for name, array in inputs.items()}
        if not self._sessions:
            raise EngineRunError("The session is closed.")
        if len(self._sessions) == 1:
            return self._run(self._sessions[0], feed)
        session = self._free.get()
        try:
            return self._run(session, feed)
        finally:
            self._free.put(session)

    def close(self) -> None:
        """Drop the sessions; the runtime frees their arenas with them."""
        self._sessions = []
        self._local = threading.local()
        while not self._free.empty():
            self._free.get()

    def _run(self, session: Any, feed: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        try:
            if self._target.runtime.io_binding:
                return self._bound(session, feed)
            values = session.run(self._outputs, feed)
        except Exception as error:
            raise EngineRunError(f"onnxruntime failed: {_short(error)}") from error
        return dict(zip(self._outputs, (_from_runtime(np.asarray(value)) for value in values), strict=True))

    def _bound(self, session: Any, feed: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Run into buffers that this thread keeps for inputs of these shapes; what is returned is a copy."""
        shapes = tuple((name, array.shape) for name, array in feed.items())
        kept: dict[Any, dict[str, np.ndarray[Any, Any]]] = self._local.__dict__.setdefault("buffers", {})
        if (id(session), shapes) not in kept:
            # The first run with these shapes tells the shapes of the outputs.
            values = dict(zip(self._outputs, map(np.asarray, session.run(self._outputs, feed)), strict=True))
            kept.clear()
            kept[id(session), shapes] = {name: np.empty_like(value) for name, value in values.items()}
            return values
        buffers = kept[id(session), shapes]
        binding = session.io_binding()
        for name, array in feed.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name, buffer in buffers.items():
            binding.bind_output(name, "cpu", 0, buffer.dtype, buffer.shape, buffer.ctypes.data)
        session.run_with_iobinding(binding)
        return {name: buffer.copy() for name, buffer in buffers.items()}


def _options(model: Path, target: Target) -> Any:
    """Session options for a target."""
    import onnxruntime as ort

    runtime = target.runtime
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # The runtime's own default is one thread for each physical core.
    options.intra_op_num_threads = target.threads or environment().cores_physical
    if runtime.execution == "parallel":
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = runtime.inter_threads
    options.enable_cpu_mem_arena = runtime.arena
    options.enable_mem_pattern = runtime.memory_pattern and runtime.execution == "sequential"
    entries: dict[str, str] = {}
    cores = _cores(target)
    if cores:
        # The calling thread works too and is not the runtime's to pin: whoever owns it does (hasten.engine.worker).
        # Cores are counted from 1 here.
        entries["session.intra_op_thread_affinities"] = ";".join(str(core + 1) for core in cores[1:])
    if runtime.flush_denormals:
        entries["session.set_denormal_as_zero"] = "1"
    if not runtime.spin:
        entries |= {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}
    entries |= {key: str(value) for key, value in target.options.items()}
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    if runtime.batch:
        for symbol in _batch_symbols(model):
            options.add_free_dimension_override_by_name(symbol, runtime.batch)
    return options


def _cores(target: Target) -> list[int]:
    """Instances with threads of their own would be pinned onto each other."""
    alone = target.runtime.instances == 1 or target.runtime.share_weights
    return cores_for(target.threads or environment().cores_physical) if target.pin and alone else []


def _session(model: Path, options: Any, provider: Provider) -> Any:
    import onnxruntime as ort

    session = ort.InferenceSession(str(model), options, providers=[(provider.provider, provider.options)])
    if provider.provider not in session.get_providers():
        raise EngineLoadError(
            f"onnxruntime fell back from {provider.device} to {', '.join(session.get_providers())}.",
            remedy=f"hasten devices says what is missing. {provider.remedy}",
        )
    return session


def _batch_symbols(model: Path) -> list[str]:
    """Symbols of the inputs' open leading axes."""
    import onnx

    graph = onnx.load_model(str(model), load_external_data=False).graph
    leading = [value.type.tensor_type.shape.dim[:1] for value in graph.input]
    found = sorted({dim.dim_param for dims in leading for dim in dims if dim.dim_param})
    if not found:
        raise EngineLoadError(
            f"{model.name} names no open leading axis, so its batch cannot be fixed.", remedy="Leave batch at 0."
        )
    return found


def _refuse_strings(signature: Signature) -> None:
    texts = [spec.name for spec in (*signature.inputs, *signature.outputs) if spec.dtype == "BYTES"]
    if texts:
        raise EngineLoadError(
            f"The text tensor {texts[0]!r} cannot be bound to a buffer.", remedy="Leave io_binding off."
        )


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
