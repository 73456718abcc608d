"""Nodes that can work in another layout, and how they are written then.

Axis `a` of a tensor becomes axis `perm[a]` of the same tensor before a transpose by `perm`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from hasten.transform.graph import CONTRIB, Graph, attribute

__all__ = ["data_inputs", "is_agnostic", "moved"]

_UNARY = frozenset({
    "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Clip", "HardSwish", "HardSigmoid", "Elu", "Selu", "Celu", "Gelu",
    "ThresholdedRelu", "Softplus", "Softsign", "Mish", "Sqrt", "Exp", "Log", "Neg", "Abs", "Erf", "Sign", "Floor",
    "Ceil", "Round", "Reciprocal", "Not", "Cast", "Sin", "Cos",
})  # fmt: skip
_CONTRIB_UNARY = frozenset({"Gelu", "FastGelu", "QuickGelu"})
_BROADCAST = frozenset({
    "Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Sum", "Mean", "Mod", "PRelu", "Where", "Equal", "Greater", "Less",
    "GreaterOrEqual", "LessOrEqual", "And", "Or", "Xor",
})  # fmt: skip
# Operators with one axis, and its default.
_AXIS = {"Concat": 0, "Split": 0, "Softmax": -1, "LogSoftmax": -1}
_REDUCE = frozenset({
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare",
    "ReduceLogSum", "ReduceLogSumExp",
})  # fmt: skip
_QUANTIZE = frozenset({"QuantizeLinear", "DequantizeLinear"})


def is_agnostic(graph: Graph, node: onnx.NodeProto, rank: int) -> bool:
    """Whether `node` works on tensors of `rank` dimensions and can be written for another layout of them."""
    if not _is_known(graph, node):
        return False
    for name in data_inputs(node):
        if not graph.is_constant(name) and graph.rank(name) != rank:
            return False
        if graph.is_constant(name) and (graph.rank(name) or 0) > rank:
            return False
    return any(not graph.is_constant(name) for name in data_inputs(node))


def data_inputs(node: onnx.NodeProto) -> list[str]:
    """The inputs that are data, in contrast to parameters such as axes and bounds."""
    if node.op_type in _BROADCAST or node.op_type == "Concat":
        return [name for name in node.input if name]
    return list(node.input[:1])


def moved(
    graph: Graph, node: onnx.NodeProto, perm: Sequence[int], names: Mapping[str, str], outputs: Sequence[str]
) -> onnx.NodeProto:
    """`node` as it is written before a transpose by `perm`, reading `names` of its data and making `outputs`."""
    made = onnx.NodeProto()
    made.CopyFrom(node)
    del made.input[:], made.output[:]
    data = set(data_inputs(node))
    made.input.extend(
        [names.get(name) or _constant(graph, name, perm) if name in data else name for name in node.input]
    )
    made.output.extend(outputs)
    if node.op_type in _AXIS:
        _set(made, "axis", _axis(attribute(node, "axis", _AXIS[node.op_type]), perm))
    elif node.op_type in _REDUCE:
        _move_axes(graph, node, made, perm)
    elif node.op_type == "Pad":
        pads = graph.constant(node.input[1])
        assert pads is not None, "is_agnostic has seen it"
        starts, ends = _unpermuted(pads[: len(perm)], perm), _unpermuted(pads[len(perm) :], perm)
        made.input[1] = graph.add_constant(f"{outputs[0]}/pads", np.concatenate([starts, ends]))
    elif node.op_type == "Slice":
        axes = graph.constant(node.input[3])
        assert axes is not None, "is_agnostic has seen it"
        made.input[3] = graph.add_constant(f"{outputs[0]}/axes", _axes(axes, perm))
    return made


def _is_known(graph: Graph, node: onnx.NodeProto) -> bool:
    kind = node.op_type
    if node.domain == CONTRIB:
        return kind in _CONTRIB_UNARY and len(node.input) == 1
    if node.domain:
        return False
    if kind in _UNARY or kind in _BROADCAST:
        return True
    if kind in _AXIS:
        return kind in ("Concat", "Split") or graph.opset >= 13
    if kind in _REDUCE:
        return bool(attribute(node, "keepdims", 1)) and (
            len(node.input) < 2 or graph.constant(node.input[1]) is not None
        )
    if kind in _QUANTIZE:
        return all(graph.scalar(name) is not None for name in node.input[1:])
    if kind == "Pad":
        return len(node.input) in (2, 3) and graph.constant(node.input[1]) is not None
    return kind == "Slice" and len(node.input) >= 4 and graph.constant(node.input[3]) is not None


def _constant(graph: Graph, name: str, perm: Sequence[int]) -> str:
    """A constant in the other layout; one number is the same in all."""
    value = graph.constant(name)
    assert value is not None, "only constants have no new name"
    if value.size == 1:
        return name
    full = value.reshape((1,) * (len(perm) - value.ndim) + value.shape)
    return graph.add_constant(f"{name}/moved", full.transpose(np.argsort(perm)))


def _axis(axis: int, perm: Sequence[int]) -> int:
    return perm[axis % len(perm)]


def _axes(axes: np.ndarray, perm: Sequence[int]) -> np.ndarray:
    return np.array([_axis(int(axis), perm) for axis in axes.reshape(-1)], np.int64)


def _move_axes(graph: Graph, node: onnx.NodeProto, made: onnx.NodeProto, perm: Sequence[int]) -> None:
    axes = attribute(node, "axes")
    if axes:
        _set(made, "axes", sorted(_axis(axis, perm) for axis in axes))
    elif len(node.input) > 1 and node.input[1]:
        value = graph.constant(node.input[1])
        assert value is not None, "is_agnostic has seen it"
        made.input[1] = graph.add_constant(f"{made.output[0]}/axes", np.sort(_axes(value, perm)))


def _unpermuted(values: np.ndarray, perm: Sequence[int]) -> np.ndarray:
    result = np.empty_like(values)
    result[list(perm)] = values
    return result


def _set(node: onnx.NodeProto, name: str, value: object) -> None:
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])
