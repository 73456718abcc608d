"""The anatomy of a model: operators, parameters, multiply-accumulates, and findings with remedies. For `hasten
inspect`.

Multiply-accumulates are counted for convolutions and matrix products, at the shapes that ONNX shape inference
finds when free dimensions take the given values. Operators whose shapes stay unknown are named, so that a count
is never silently too small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from hasten.model.onnx_file import OnnxModel, all_weights
from hasten.spec.values import Value

__all__ = ["Finding", "Macs", "count_macs", "findings"]

_SUBNORMAL_BELOW = float(np.finfo(np.float32).tiny)


class Macs(Value, frozen=True):
    """Multiply-accumulates for one run, and how many operators could not be counted."""

    total: int
    uncounted: int
    dims: dict[str, int]


class Finding(Value, frozen=True):
    """Something in the model that costs speed or honesty, and what to do about it."""

    code: str
    message: str
    remedy: str


def count_macs(model: OnnxModel, dims: Mapping[str, int]) -> Macs:
    """Count multiply-accumulates with the free dimensions of the inputs set to `dims` (by symbol; others become
    1).
    """
    fixed, used = _with_fixed_inputs(model, dims)
    shapes = _shapes(fixed)
    total = uncounted = 0
    for node in fixed.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
            continue
        count = _macs_of(node, shapes)
        total, uncounted = (total + count, uncounted) if count is not None else (total, uncounted + 1)
    return Macs(total=total, uncounted=uncounted, dims=used)


def findings(model: OnnxModel) -> list[Finding]:
    """Look for what slows engines down or misleads tools."""
    found = [_constant_weights(model), _subnormals(model), _odd_channels(model), _old_opset(model)]
    return [item for item in found if item]


def _constant_weights(model: OnnxModel) -> Finding | None:
    constants = sum(1 for node in model.proto.graph.node if node.op_type == "Constant")
    if len(model.proto.graph.initializer) or not constants:
        return None
    return Finding(
        code="weights-in-constants",
        message=f"All weights stand in {constants} Constant nodes and none in initializers.",
        remedy="Tools that look only at initializers see an empty model; hasten folds them first (transform fold).",
    )


def _subnormals(model: OnnxModel) -> Finding | None:
    count = 0
    for tensor in all_weights(model.proto.graph):
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.data_location != onnx.TensorProto.EXTERNAL:
            values = np.abs(numpy_helper.to_array(tensor))
            count += int(np.count_nonzero((values > 0) & (values < _SUBNORMAL_BELOW)))
    if not count:
        return None
    return Finding(
        code="subnormal-weights",
        message=f"{count} weights are subnormal numbers, on which processors compute 5 to 10 times slower.",
        remedy="Set weights below 1.2e-38 to zero.",
    )


def _odd_channels(model: OnnxModel) -> Finding | None:
    dims = {tensor.name: tuple(tensor.dims) for tensor in all_weights(model.proto.graph)}
    for node in model.proto.graph.node:
        if node.op_type == "Constant":
            dims[node.output[0]] = _constant_dims(node)
    convolutions = [node for node in model.proto.graph.node if node.op_type == "Conv"]
    odd = [node for node in convolutions if (dims.get(node.input[1]) or (16,))[0] % 16]
    if not odd:
        return None
    return Finding(
        code="misaligned-channels",
        message=f"{len(odd)} of {len(convolutions)} convolutions have output channels that are no multiple of 16.",
        remedy="Vector units fill 8 or 16 lanes: train or prune to multiples of 16.",
    )


def _old_opset(model: OnnxModel) -> Finding | None:
    if model.opset >= 13:
        return None
    return Finding(
        code="old-opset",
        message=f"The model uses operator set {model.opset}; per-channel quantization needs 13.",
        remedy="hasten raises it before it quantizes (transform raise_opset); exporting anew is better.",
    )


def _with_fixed_inputs(model: OnnxModel, dims: Mapping[str, int]) -> tuple[onnx.ModelProto, dict[str, int]]:
    """A copy whose free input dimensions are numbers, and the numbers that were used."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model.proto)
    used: dict[str, int] = {}
    for value in copy.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not (dim.HasField("dim_value") and dim.dim_value > 0):
                place = f"{value.name}[{axis}]"
                size = dims.get(place, dims.get(dim.dim_param, 1))
                used[place] = size
                dim.Clear()
                dim.dim_value = size
    return copy, used


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:
        # Inference refuses some valid models; then every operator counts as uncounted, which the caller shows.
        inferred = model
    shapes = {tensor.name: tuple(tensor.dims) for tensor in inferred.graph.initializer}
    for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    for node in inferred.graph.node:
        if node.op_type == "Constant":
            shapes[node.output[0]] = _constant_dims(node)
    return shapes


def _constant_dims(node: onnx.NodeProto) -> tuple[int, ...]:
    return next((tuple(a.t.dims) for a in node.attribute if a.name == "value"), ())


def _macs_of(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Multiply-accumulates of one operator: size of the output times length of each dot product."""
    left, right, out = (shapes.get(name) for name in (node.input[0], node.input[1], node.output[0]))
    if left is None or right is None or out is None:
        return None
    if node.op_type == "Conv":
        return math.prod(out) * math.prod(right[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(left) * math.prod(right[1:])
    if node.op_type == "Gemm":
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return math.prod(out) * (left[0] if transposed else left[-1])
    return math.prod(out) * left[-1]
