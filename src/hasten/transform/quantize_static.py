"""Static quantization to int8: scales fixed from calibration data, as quantize-dequantize (QDQ) pairs in standard
ONNX.

Ranges come from our own streaming calibrator, the pairs from ONNX Runtime's quantizer. It promises nothing about
accuracy: some models survive this, some are ruined, and measuring tells which. Source: Jacob et al. 2018, "Quantization
and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast, final

import onnx
from onnx import numpy_helper

from hasten.model.base import Model
from hasten.model.onnx_file import save_proto
from hasten.transform.base import Options, Task, Transform, TransformFailed
from hasten.transform.calibrate import METHODS, calibrate
from hasten.transform.onnx_graph import add_constant, element_types, graph_of, is_quantized, site_names, weights_of
from hasten.transform.ort_quantizer import named_with_shapes, quiet

__all__ = ["SAMPLES", "QuantizeStatic"]

SAMPLES = 64
_FLOATS = {"Conv", "MatMul", "Gemm", "ConvTranspose"}
_TYPES = ("QUInt8", "QInt8")


@final
class QuantizeStatic(Transform):
    """Quantize weights and activations.

    Options: `samples`, the largest number of calibration samples; `method` minmax, percentile, entropy or mse, with
    `percentile` for the second; `per_channel` weights; `reduce_range`, 7-bit weights, for x86 processors without VNNI,
    whose 16-bit sums saturate; `weight_type` and `activation_type` QInt8 or QUInt8; `symmetric` activations;
    `operators`, a comma-separated list, empty for every kind that ONNX Runtime has int8 kernels for.
    """

    name = "quantize_static"
    promise = "approximate"
    defaults = {
        "samples": SAMPLES,
        "method": "minmax",
        "percentile": 99.99,
        "per_channel": True,
        "reduce_range": False,
        "weight_type": "QInt8",
        "activation_type": "QUInt8",
        "symmetric": False,
        "operators": "",
    }

    def requires(self, model: Model, options: Options) -> str | None:
        """Something to quantize, not quantized yet, and an operator set that knows per-channel scales."""
        if is_quantized(model):
            return "the model is quantized already."
        if not _FLOATS & set(model.operators()):
            return "the model has no convolution and no matrix product."
        if model.opset < 13:
            return f"per-channel quantization needs operator set 13, the model uses {model.opset} (raise_opset first)."
        return None

    def sites(self, model: Model, options: Options) -> Sequence[str]:
        """The nodes that do arithmetic with weights; what stands between them follows."""
        return [name for name, node in site_names(graph_of(model)).items() if node.op_type in _kinds(options)]

    def apply(self, task: Task) -> None:
        """Observe, then let the quantizer write its pairs."""
        from onnxruntime.quantization import CalibrationMethod, QuantType
        from onnxruntime.quantization.calibrate import TensorsData
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        options = task.options
        proto = named_with_shapes(task.model)
        _flatten_biases(proto.graph)
        ranges = _ranges(proto, task)
        with quiet():
            quantizer: Any = QDQQuantizer(
                proto,
                per_channel=bool(options["per_channel"]),
                reduce_range=bool(options["reduce_range"]),
                weight_qType=getattr(QuantType, _type(options, "weight_type")),
                activation_qType=getattr(QuantType, _type(options, "activation_type")),
                tensors_range=TensorsData(CalibrationMethod.MinMax, cast("dict[str, Any]", ranges)),
                nodes_to_quantize=[],
                nodes_to_exclude=sorted(task.skip) + _around(proto, task.skip),
                op_types_to_quantize=_operators(options),
                extra_options={
                    "ActivationSymmetric": bool(options["symmetric"]),
                    "WeightSymmetric": True,
                    # Fails on Gemm with a scale for each channel (onnxruntime 1.32); it only matters for weights
                    # so small that their biases overflow 32 bits, which measuring would show.
                    "QDQDisableWeightAdjustForInt32Bias": True,
                },
            )
            quantizer.quantize_model()
            quantizer.model.clean_initializers()
            quantizer.model.topological_sort()
            save_proto(quantizer.model.model, task.out)


def _flatten_biases(graph: onnx.GraphProto) -> None:
    """Write biases [1, n] of Gemm nodes as [n], which means the same.

    The quantizer gives a bias its scales along the first axis (onnxruntime 1.32), and a model that does not run.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        bias = constants.get(node.input[2]) if node.op_type == "Gemm" and len(node.input) > 2 else None
        if bias is not None and len(bias.dims) == 2 and bias.dims[0] == 1:
            node.input[2] = add_constant(graph, f"{bias.name}/flat", numpy_helper.to_array(bias)[0])


def _ranges(proto: onnx.ModelProto, task: Task) -> dict[str, tuple[Any, Any]]:
    """Ranges of every f32 activation that could be quantized, as f32 scalars."""
    import numpy as np

    options = task.options
    method = str(options["method"])
    if method not in METHODS:
        raise TransformFailed(f"quantize_static has no method {method!r}.", remedy=f"Choose {', '.join(METHODS)}.")
    count = min(int(options["samples"]), len(task.calibration))
    found = calibrate(
        proto,
        _observed(proto, _operators(options)),
        task.calibration,
        count=count,
        method=method,
        percentile=float(options["percentile"]),
    )
    return {name: (np.float32(low), np.float32(high)) for name, (low, high) in found.items()}


def _observed(proto: onnx.ModelProto, operators: list[str]) -> list[str]:
    """f32 tensors that an operator to be quantized reads or writes, without constants."""
    graph = proto.graph
    constants, types = weights_of(graph), element_types(graph)
    places = (name for node in graph.node if node.op_type in operators for name in (*node.input, *node.output) if name)
    return [
        name for name in dict.fromkeys(places) if name not in constants and types.get(name) == onnx.TensorProto.FLOAT
    ]


def _around(proto: onnx.ModelProto, skip: frozenset[str]) -> list[str]:
    """Cheap nodes that only serve skipped ones: quantizing these would put pairs around a float island."""
    readers: dict[str, set[str]] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.name)
    alone: list[str] = []
    for node in proto.graph.node:
        served = {name for output in node.output for name in readers.get(output, ())}
        if node.op_type not in _FLOATS and served and served <= skip:
            alone.append(node.name)
    return alone


def _operators(options: Options) -> list[str]:
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    given = [name.strip() for name in str(options["operators"]).split(",") if name.strip()]
    return given or sorted({*QLinearOpsRegistry, *QDQRegistry})


def _kinds(options: Options) -> set[str]:
    """Kinds of nodes that are sites: those with arithmetic, as far as the options let them be quantized."""
    given = {name.strip() for name in str(options["operators"]).split(",") if name.strip()}
    return _FLOATS & given if given else _FLOATS


def _type(options: Options, name: str) -> str:
    value = str(options[name])
    if value not in _TYPES:
        raise TransformFailed(f"quantize_static has no {name} {value!r}.", remedy=f"Choose {' or '.join(_TYPES)}.")
    return value
