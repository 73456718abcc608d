"""Rules of `fold`: multiplications and additions with constants before or after a convolution go into its weights.

After a convolution that is exact always; ONNX Runtime does it for some spellings, these rules for all. Before one,
scaling is exact; shifting only without padding, because padded zeros are not shifted. Training tricks such as learnable
scales (RepVGG, MobileOne, PP-LCNet) leave many of these behind. The new weights are computed in double precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from hasten.transform.graph import Graph, attribute, constants_first
from hasten.transform.rewrite import Change
from hasten.transform.scalar_functions import function_of, regions

__all__ = ["affine_after", "affine_before"]

Array = np.ndarray[Any, Any]
_AFFINE = ("Mul", "Div", "Add", "Sub")


def affine_after(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
    """Fold the anchor, an operation with a constant, into the convolution before it."""
    if anchor.op_type not in _AFFINE or anchor.domain:
        return None
    both = constants_first(graph, anchor)
    conv = graph.producer(both[1], "Conv") if both else None
    if both is None or conv is None or not graph.private(both[1]):
        return None
    weights, bias = _weights(graph, conv)
    if weights is None or bias is None:
        return None
    value = _per_channel(graph.constant(both[0]), weights.shape[0], weights.ndim, weights.dtype)
    pair = _scale_and_shift(anchor, value, constant_first=anchor.input[0] == both[0])
    if pair is None:
        return None
    scale, shift = pair
    wide = weights.astype(np.float64) * scale.reshape(-1, *[1] * (weights.ndim - 1))
    return _conv(graph, conv, anchor.output[0], conv.input[0], wide, bias * scale + shift, weights.dtype)


def affine_before(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
    """Fold an operation with a constant into the anchor, the convolution that reads it."""
    if anchor.op_type != "Conv" or anchor.domain:
        return None
    node = graph.producer(anchor.input[0], *_AFFINE)
    both = constants_first(graph, node) if node is not None else None
    if node is None or both is None or not graph.private(anchor.input[0]) or _ends_a_function(graph, node):
        return None
    weights, bias = _weights(graph, anchor)
    if weights is None or bias is None:
        return None
    groups = int(attribute(anchor, "group", 1))
    value = _per_channel(graph.constant(both[0]), weights.shape[1] * groups, weights.ndim, weights.dtype)
    pair = _scale_and_shift(node, value, constant_first=node.input[0] == both[0])
    if pair is None or (np.any(pair[1]) and _pads(anchor)):
        return None
    # Each group of outputs reads its own group of inputs.
    scale, shift = (np.repeat(part.reshape(groups, -1), weights.shape[0] // groups, axis=0) for part in pair)
    spatial = [1] * (weights.ndim - 2)
    wide = weights.astype(np.float64)
    moved = bias + (wide * shift.reshape(*shift.shape, *spatial)).sum(axis=tuple(range(1, wide.ndim)))
    scaled = wide * scale.reshape(*scale.shape, *spatial)
    return _conv(graph, anchor, anchor.output[0], both[1], scaled, moved, weights.dtype)


def _ends_a_function(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node is the last of a spelled-out activation, such as the division by six of a hard swish.

    An engine may have one operator for the whole, which is worth more than one node less.
    """
    return any(function_of(graph, region) is not None for region in regions(graph, node))


def _weights(graph: Graph, conv: onnx.NodeProto) -> tuple[Array | None, Array | None]:
    """Weights as they are and the bias in double precision, where both are constant."""
    weights = graph.constant(conv.input[1])
    if weights is None or weights.dtype not in (np.float32, np.float64, np.float16):
        return None, None
    if len(conv.input) < 3 or not conv.input[2]:
        return weights, np.zeros(weights.shape[0])
    bias = graph.constant(conv.input[2])
    return weights, None if bias is None else bias.astype(np.float64)


def _per_channel(value: Array | None, channels: int, rank: int, dtype: Any) -> Array | None:
    """A constant as one number for each channel, if that is how it spreads over [batch, channel, ...]."""
    if value is None or value.dtype != dtype or value.ndim > rank:
        return None
    shape = (1,) * (rank - value.ndim) + value.shape
    if shape[1] not in (1, channels) or any(size != 1 for place, size in enumerate(shape) if place != 1):
        return None
    return np.broadcast_to(value.reshape(-1).astype(np.float64), (channels,))


def _scale_and_shift(node: onnx.NodeProto, value: Array | None, *, constant_first: bool) -> tuple[Array, Array] | None:
    """What a node does to its other input: times the first, plus the second."""
    if value is None:
        return None
    ones, zeros = np.ones_like(value), np.zeros_like(value)
    if node.op_type == "Mul":
        return value, zeros
    if node.op_type == "Add":
        return ones, value
    if node.op_type == "Sub":
        return (-ones, value) if constant_first else (ones, -value)
    return (1 / value, zeros) if not constant_first and np.all(value != 0) else None


def _pads(conv: onnx.NodeProto) -> bool:
    automatic = attribute(conv, "auto_pad", b"NOTSET")
    return automatic in (b"SAME_UPPER", b"SAME_LOWER") or any(attribute(conv, "pads", []))


def _conv(
    graph: Graph, conv: onnx.NodeProto, output: str, source: str, weights: Array, bias: Array, dtype: Any
) -> Change | None:
    weights, bias = weights.astype(dtype), bias.astype(dtype)
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        return None
    made = onnx.NodeProto()
    made.CopyFrom(conv)
    del made.input[:], made.output[:]
    made.input.extend(
        [source, graph.add_constant(f"{output}/weights", weights), graph.add_constant(f"{output}/bias", bias)]
    )
    made.output.append(output)
    return Change("affine", [made])
