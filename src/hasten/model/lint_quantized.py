"""Lint rules about quantized models: where the int8 that a file promises is not what an engine computes."""

from __future__ import annotations

import math

import onnx

from hasten.model.lint_base import Found, Rule, View, label, rule_of, seen

__all__ = ["RULES"]

RULES: list[Rule] = []

_COMPUTES = ("Conv", "MatMul", "Gemm", "ConvTranspose")
# Operators that pass quantized numbers on as they are.
_PASSES_ON = frozenset({
    "Reshape", "Transpose", "MaxPool", "Concat", "Gather", "Slice", "Squeeze", "Unsqueeze", "Flatten", "Pad", "Resize",
    "Split", "Expand", "Identity", "Clip", "Cast",
})  # fmt: skip
_FROM_F32 = " Quantize the f32 model anew: hasten leaves alone what does not pay."


@rule_of(
    RULES,
    "unfused-qdq",
    "An engine cannot fuse half a pair and computes both steps in f32." + _FROM_F32,
    transform="quantize_static",
)
def dangling_pairs(view: View) -> Found | None:
    """A quantized tensor that nobody reads, or a tensor that is dequantized without having been quantized."""
    lost = [node for node in view.of("QuantizeLinear") if not view.read(node.output[0]) and _is_inner(view, node)]
    lost += [node for node in view.of("DequantizeLinear") if _comes_from_nowhere(view, node)]
    return seen(
        map(label, lost),
        "{} quantizing or dequantizing node has no partner.",
        "{} quantizing or dequantizing nodes have no partner.",
    )


def _is_inner(view: View, node: onnx.NodeProto) -> bool:
    return node.output[0] not in view.outputs


def _comes_from_nowhere(view: View, node: onnx.NodeProto) -> bool:
    """Whether what is dequantized was made by an operator that makes no quantized numbers."""
    maker = view.producers.get(node.input[0])
    if maker is None or maker.op_type in _PASSES_ON or maker.op_type == "Constant":
        return False
    # QLinearConv, QuantizeLinear, QLinearMatMul, ...; ConvInteger; DynamicQuantizeLinear.
    return not maker.op_type.startswith("Q") and "Integer" not in maker.op_type and "Quantize" not in maker.op_type


@rule_of(
    RULES,
    "per-channel-activations",
    "int8 kernels take one scale for a whole activation; only weights may have one for each channel." + _FROM_F32,
    transform="quantize_static",
)
def per_channel_activations(view: View) -> Found | None:
    """Activations with a scale for each channel."""
    return seen(
        [
            label(node)
            for node in view.nodes
            if node.op_type == "QuantizeLinear" and node.input[0] not in view.constants and _scales(view, node) > 1
        ],
        "{} activation is quantized per channel.",
        "{} activations are quantized per channel.",
    )


def _scales(view: View, node: onnx.NodeProto) -> int:
    scale = view.constants.get(node.input[1])
    return math.prod(scale.dims) if scale is not None else 1


@rule_of(
    RULES,
    "half-quantized-operators",
    "Quantize both operands or neither." + _FROM_F32,
    transform="quantize_static",
)
def half_quantized(view: View) -> Found | None:
    """Operators that get a quantized activation and f32 weights. Quantized weights alone may be meant, for size."""
    mixed = [
        label(node)
        for node in view.nodes
        if node.op_type in _COMPUTES and _dequantized(view, node.input[0]) and node.input[1] in view.constants
    ]
    return seen(
        mixed,
        "{} operator has a quantized activation and f32 weights, and computes in f32.",
        "{} operators have a quantized activation and f32 weights, and compute in f32.",
    )


def _dequantized(view: View, name: str) -> bool:
    maker = view.producers.get(name)
    return maker is not None and maker.op_type == "DequantizeLinear"


@rule_of(
    RULES,
    "interrupted-qdq",
    "Move the operator before the quantization or quantize its result." + _FROM_F32,
    transform="quantize_static",
)
def interrupted_pairs(view: View) -> Found | None:
    """Something between dequantizing and computing that keeps an engine from fusing the two."""
    between = [
        f"{label(maker)} before {label(node)}"
        for node in view.nodes
        if node.op_type in _COMPUTES and any(_dequantized(view, name) for name in node.input[:2])
        for name in node.input[:2]
        if (maker := view.producers.get(name)) is not None
        and maker.op_type != "DequantizeLinear"
        and maker.input
        and _dequantized(view, maker.input[0])
    ]
    return seen(
        between,
        "{} operator stands between dequantizing and computing and keeps int8 kernels out.",
        "{} operators stand between dequantizing and computing and keep int8 kernels out.",
    )


@rule_of(RULES, "quantization-round-trips", "Where both use one scale, the pair can go.", level="note")
def round_trips(view: View) -> Found | None:
    """Activations that are dequantized only to be quantized again."""
    trips = [
        label(node)
        for node in view.nodes
        if node.op_type == "QuantizeLinear"
        and _dequantized(view, node.input[0])
        and len(view.read(node.input[0])) == 1
        and view.producers[node.input[0]].input[0] not in view.constants
    ]
    return seen(
        trips,
        "{} tensor is dequantized and at once quantized again.",
        "{} tensors are dequantized and at once quantized again.",
    )


@rule_of(
    RULES,
    "dynamic-convolutions",
    "CPU engines have no fast kernel for ConvInteger; it is usually slower than f32. Take the f32 model and quantize "
    "it with calibration data.",
    transform="quantize_static",
)
def dynamic_convolutions(view: View) -> Found | None:
    """Convolutions whose activations are quantized anew in each run."""
    return seen(
        map(label, view.of("ConvInteger")),
        "{} convolution is quantized dynamically.",
        "{} convolutions are quantized dynamically.",
    )


@rule_of(
    RULES,
    "quantized-transposed-convolutions",
    "ONNX Runtime's CPU kernels dequantize, compute in f32 and quantize again: leave these nodes in f32.",
)
def transposed_convolutions(view: View) -> Found | None:
    """Transposed convolutions between quantized tensors."""
    return seen(
        [label(n) for n in view.of("ConvTranspose") if all(_dequantized(view, name) for name in n.input[:2])],
        "{} transposed convolution is quantized.",
        "{} transposed convolutions are quantized.",
    )
