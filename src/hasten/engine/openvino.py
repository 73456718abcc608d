"""OpenVINO: bf16, f16 and int8 kernels on CPUs; Intel GPUs and NPUs where there are any.

The precision hint is always pinned: left alone, OpenVINO silently runs bf16 on processors that have it, and what looks
like a faster engine is a change of precision (facts on honest results). After compiling, the hint is read back, and the
executed graph is asked which precision its operators really run in.
"""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from hasten.engine.base import Device, Hardware, Probe, Tensors
from hasten.errors import EngineLoadError, EngineRunError
from hasten.spec.signature import Signature
from hasten.spec.target import Format, Precision, Target
from hasten.spec.tensor import DType, TensorSpec

__all__ = ["OpenVino", "OpenVinoSession"]

_DTYPES: dict[str, DType] = {
    "f32": "FP32", "f16": "FP16", "bf16": "BF16", "f64": "FP64", "boolean": "BOOL", "string": "BYTES",
    "i8": "INT8", "i16": "INT16", "i32": "INT32", "i64": "INT64",
    "u8": "UINT8", "u16": "UINT16", "u32": "UINT32", "u64": "UINT64",
}  # fmt: skip

# int8 graphs keep their unquantized operators in f32, so that "int8" means one thing on every engine.
_HINTS: dict[Precision, str] = {"f32": "f32", "f16": "f16", "bf16": "bf16", "int8": "f32"}
_RUNTIME_PRECISIONS: dict[str, Precision] = {
    "f32": "f32", "f16": "f16", "bf16": "bf16", "i8": "int8", "u8": "int8",
}  # fmt: skip
# Operators that do the arithmetic; data movement says nothing about precision.
_ARITHMETIC = {
    "Convolution",
    "GroupConvolution",
    "MatMul",
    "FullyConnected",
    "Deconvolution",
    "RNNSeq",
    "MHA",
}


_HARDWARE: dict[str, Hardware] = {"CPU": "CPU", "GPU": "GPU", "NPU": "NPU"}


class OpenVino:
    """The engine."""

    name = "openvino"
    formats: frozenset[Format] = frozenset({"onnx", "tflite", "openvino"})
    honours: frozenset[str] = frozenset()

    def probe(self) -> Probe:
        """Ask the runtime for its devices and what each can compute in."""
        import openvino as ov

        core: Any = ov.Core()
        return Probe(
            engine=self.name,
            version=importlib.metadata.version("openvino"),
            devices=tuple(_device(core, name) for name in core.available_devices),
        )

    def load(self, model: Path, target: Target) -> OpenVinoSession:
        """Read and compile an ONNX file, TFLite file or OpenVINO IR with the precision pinned."""
        import openvino as ov

        core: Any = ov.Core()
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINTS[target.precision],
            **({"ENABLE_CPU_PINNING": target.pin} if target.device == "CPU" else {}),
            **target.options,
        }
        if target.threads:
            settings["INFERENCE_NUM_THREADS"] = target.threads
        try:
            compiled: Any = core.compile_model(str(model), target.device, settings)
        except Exception as error:
            raise EngineLoadError(
                f"openvino refused {model.name}: {_short(error)}",
                remedy="Check the file with: hasten inspect " + model.name,
            ) from error
        session = OpenVinoSession(compiled)
        # A quantized graph computes in int8 whatever is asked of its float operators; what must never pass is a
        # float precision narrower than the one asked for.
        if session.precision not in (target.precision, "int8") and target.precision != "int8":
            raise EngineLoadError(
                f"openvino runs {model.name} in {session.precision} although {target.precision} was asked for.",
                remedy="This processor or this model does not take that precision; choose another.",
            )
        return session


class OpenVinoSession:
    """A compiled model with one infer request. Not thread-safe."""

    def __init__(self, compiled: Any) -> None:
        self._compiled: Any = compiled
        self._request: Any = compiled.create_infer_request()
        self._signature = Signature(
            inputs=tuple(_spec(port) for port in compiled.inputs),
            outputs=tuple(_spec(port) for port in compiled.outputs),
        )
        self._names = [spec.name for spec in self._signature.outputs]
        self._precision: Precision = _precision_used(compiled)

    @property
    def signature(self) -> Signature:
        """Inputs and outputs as the runtime sees them."""
        return self._signature

    @property
    def precision(self) -> Precision:
        """What most arithmetic operators of the executed graph run in."""
        return self._precision

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        """Run one batch. Raises `EngineRunError`."""
        try:
            results = self._request.infer(dict(inputs), share_inputs=True)
        except Exception as error:
            raise EngineRunError(f"openvino failed: {_short(error)}") from error
        return {name: _from_runtime(results[index]) for index, name in enumerate(self._names)}

    def close(self) -> None:
        """Drop the request and the compiled model."""
        self._request = None
        self._compiled = None


def _device(core: Any, name: str) -> Device:
    capabilities = set(core.get_property(name, "OPTIMIZATION_CAPABILITIES"))
    known: list[tuple[str, Precision]] = [
        ("FP32", "f32"),
        ("FP16", "f16"),
        ("BF16", "bf16"),
        ("INT8", "int8"),
    ]
    return Device(
        name=name,
        hardware=_HARDWARE.get(name.split(".")[0], "ASIC"),
        detail=str(core.get_property(name, "FULL_DEVICE_NAME")).strip(),
        precisions=tuple(precision for capability, precision in known if capability in capabilities),
    )


def _precision_used(compiled: Any) -> Precision:
    """Count the arithmetic operators of the executed graph by runtime precision; the commonest is the answer.

    Where the device does not describe its graph, the precision hint that it accepted is read back instead.
    """
    hint = _RUNTIME_PRECISIONS.get(str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string()), "f32")
    counts: Counter[Precision] = Counter()
    for op in compiled.get_runtime_model().get_ordered_ops():
        info = op.get_rt_info()
        if "layerType" not in info or str(info["layerType"].astype(str)) not in _ARITHMETIC:
            continue
        precision = _RUNTIME_PRECISIONS.get(str(info["runtimePrecision"].astype(str)))
        if precision:
            counts[precision] += 1
    return counts.most_common(1)[0][0] if counts else hint


def _spec(port: Any) -> TensorSpec:
    kind = port.get_element_type().to_string()
    dtype = _DTYPES.get(kind)
    if dtype is None:
        raise EngineLoadError(
            f"The tensor {_name(port)!r} has type {kind}, which hasten cannot carry.",
            remedy="Export the model with plain tensors as inputs and outputs.",
        )
    dims: list[int | str] = [int(d.get_length()) if d.is_static else "?" for d in port.get_partial_shape()]
    return TensorSpec(name=_name(port), dtype=dtype, shape=tuple(dims))


def _name(port: Any) -> str:
    """The model's own name of an input or output: compiling may give it those of tensors that were folded into it."""
    own = str(port.get_node().get_friendly_name()).partition("/sink_port_")[0]
    return own if own in port.get_names() else str(port.get_any_name())


def _from_runtime(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Copy out of the request's own buffer, which the next run overwrites."""
    if array.dtype.kind not in "OUS":
        return np.array(array)
    raw = np.empty(array.size, dtype=object)
    raw[:] = [str(item).encode() for item in array.ravel()]
    return raw.reshape(array.shape)


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return " ".join(useful or lines)[:400]
