"""Rules of `fuse` for layer normalization (Ba, Kiros and Hinton 2016), alone and with the residual sum before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from hasten.transform.graph import CONTRIB, Graph, attribute, constants_first
from hasten.transform.rewrite import Change

__all__ = ["layer_norm", "skip_layer_norm"]


def layer_norm(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
    """Mean, deviation, scale and shift, written out, become one LayerNormalization (operator set 17)."""
    if graph.opset < 17 or graph.type(anchor.output[0]) != TensorProto.FLOAT:
        return None
    beta, scaled = _constant_and_maker(graph, anchor, "Add", "Mul")
    product = scaled if beta else anchor if anchor.op_type == "Mul" else None
    gamma, normal = _constant_and_maker(graph, product, "Mul", "Div", "Mul") if product is not None else ("", None)
    if normal is None or not gamma:
        return None
    found = _normalized(graph, normal)
    if found is None or not _fits(graph, found, gamma) or (beta and not _fits(graph, found, beta)):
        return None
    if not beta and _is_shifted(graph, found, anchor):
        return None
    inputs = [found.x, _flat(graph, found, gamma), *([_flat(graph, found, beta)] if beta else [])]
    axis = -len(found.axes)
    return Change(
        "layer_norm",
        [graph.node("LayerNormalization", inputs, anchor.output[0], axis=axis, epsilon=found.epsilon)],
    )


def _is_shifted(graph: Graph, found: _Normal, scaled: onnx.NodeProto) -> bool:
    """Whether a shift follows, so that the pattern ends there."""
    readers = graph.readers(scaled.output[0]) if graph.private(scaled.output[0]) else []
    both = constants_first(graph, readers[0]) if readers and readers[0].op_type == "Add" else None
    return both is not None and graph.allowed(readers[0]) and _fits(graph, found, both[0])


def skip_layer_norm(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
    """A sum of two tensors of the same shape and the normalization of it become one operator of ONNX Runtime."""
    if anchor.op_type != "LayerNormalization" or anchor.domain or len(anchor.input) < 2:
        return None
    if attribute(anchor, "axis", -1) != -1 or len([name for name in anchor.output if name]) != 1:
        return None
    total = graph.producer(anchor.input[0], "Add")
    if total is None or graph.read_in_subgraph(total.output[0]):
        return None
    left, right = (graph.shape(name) for name in total.input)
    if left is None or left != right or len(left) != 3 or any(map(graph.is_constant, total.input)):
        return None
    if any(graph.rank(name) != 1 for name in anchor.input[1:]):
        return None
    return _with_skip(graph, anchor, total)


def _with_skip(graph: Graph, anchor: onnx.NodeProto, total: onnx.NodeProto) -> Change:
    both = total.output[0]
    inputs = [*total.input, anchor.input[1], anchor.input[2] if len(anchor.input) > 2 else ""]
    outputs = [anchor.output[0]]
    if not graph.private(both):
        # The sum is wanted elsewhere, too; the operator gives it as its fourth output.
        outputs += ["", "", both]
        graph.remove(total)
    node = helper.make_node("SkipLayerNormalization", inputs, outputs, domain=CONTRIB)
    node.attribute.append(helper.make_attribute("epsilon", float(attribute(anchor, "epsilon", 1e-5))))
    return Change("skip_layer_norm", [node])


@dataclass(frozen=True, slots=True)
class _Normal:
    x: str
    rank: int
    axes: tuple[int, ...]
    epsilon: float


def _constant_and_maker(
    graph: Graph, node: onnx.NodeProto, own: str, *makers: str
) -> tuple[str, onnx.NodeProto | None]:
    """Of a node `own` of a constant and something else: the constant, and who makes the other, if it is a `makers`."""
    if node.op_type != own or node.domain:
        return "", None
    both = constants_first(graph, node)
    maker = graph.producer(both[1], *makers) if both else None
    return (both[0], maker) if both and maker is not None else ("", None)


def _normalized(graph: Graph, node: onnx.NodeProto) -> _Normal | None:
    """Match (x - mean) / sqrt(variance + epsilon) in its usual spellings."""
    for centred, spread in _quotients(graph, node):
        sub, add = graph.producer(centred, "Sub"), graph.producer(spread, "Add")
        both = constants_first(graph, add) if add is not None else None
        if sub is None or both is None:
            continue
        x, mean = sub.input
        epsilon, variance = graph.scalar(both[0]), graph.producer(both[1], "ReduceMean")
        axes, rank = _mean_axes(graph, graph.producer(mean, "ReduceMean"), x), graph.rank(x)
        if epsilon is None or axes is None or rank is None or variance is None:
            continue
        squared = _squared(graph, variance.input[0])
        same = squared is not None and _same(graph, squared, centred)
        if same and axes == _mean_axes(graph, variance, variance.input[0]) and axes == tuple(range(-len(axes), 0)):
            return _Normal(x, rank, axes, epsilon)
    return None


def _quotients(graph: Graph, node: onnx.NodeProto) -> list[tuple[str, str]]:
    """Pairs (a, b) with which `node` is a / sqrt(b)."""
    left, right = node.input
    if node.op_type == "Div":
        root = _root(graph, right)
        return [(left, root)] if root else []
    found: list[tuple[str, str]] = []
    for numerator, inverse in ((left, right), (right, left)):
        maker = graph.producer(inverse, "Reciprocal", "Div", "Pow")
        if maker is None:
            continue
        if maker.op_type == "Reciprocal":
            found.append((numerator, _root(graph, maker.input[0])))
        elif maker.op_type == "Div" and graph.scalar(maker.input[0]) == 1:
            found.append((numerator, _root(graph, maker.input[1])))
        elif maker.op_type == "Pow" and graph.scalar(maker.input[1]) == -0.5:
            found.append((numerator, maker.input[0]))
    return [(numerator, root) for numerator, root in found if root]


def _root(graph: Graph, name: str) -> str:
    """The tensor whose square root `name` is, or nothing."""
    maker = graph.producer(name, "Sqrt", "Pow")
    if maker is None or (maker.op_type == "Pow" and graph.scalar(maker.input[1]) != 0.5):
        return ""
    return maker.input[0]


def _squared(graph: Graph, name: str) -> str | None:
    maker = graph.producer(name, "Pow", "Mul")
    if maker is None:
        return None
    if maker.op_type == "Pow":
        return maker.input[0] if graph.scalar(maker.input[1]) == 2 else None
    return maker.input[0] if _same(graph, maker.input[0], maker.input[1]) else None


def _same(graph: Graph, left: str, right: str) -> bool:
    """Whether two names mean the same difference: some exporters write it twice."""
    a, b = graph.producer(left, "Sub"), graph.producer(right, "Sub")
    return left == right or (a is not None and b is not None and list(a.input) == list(b.input))


def _mean_axes(graph: Graph, node: onnx.NodeProto | None, wanted: str) -> tuple[int, ...] | None:
    """The axes, counted from the end, of a mean of `wanted` that keeps its dimensions."""
    rank = graph.rank(wanted)
    if node is None or node.input[0] != wanted or rank is None or not attribute(node, "keepdims", 1):
        return None
    axes = attribute(node, "axes")
    if axes is None and len(node.input) > 1:
        axes = graph.constant(node.input[1])
    return None if axes is None else tuple(sorted(int(axis) - rank if axis >= 0 else int(axis) for axis in axes))


def _fits(graph: Graph, found: _Normal, name: str) -> bool:
    """Whether a scale or shift has exactly the shape that was normalized over, ones before it aside."""
    value, shape = graph.constant(name), graph.shape(found.x)
    assert shape is not None, "the rank of this tensor is known"
    wanted = shape[-len(found.axes) :]
    return value is not None and (1,) * (value.ndim - len(wanted)) + wanted == value.shape


def _flat(graph: Graph, found: _Normal, name: str) -> str:
    value = graph.constant(name)
    assert value is not None, "_fits has seen it"
    count = len(found.axes)
    return name if value.ndim == count else graph.add_constant(f"{name}/flat", np.reshape(value, value.shape[-count:]))
