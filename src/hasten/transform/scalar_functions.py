"""Recognize a function of one number in a group of elementwise nodes, however an exporter wrote it down.

GELU alone is exported in a dozen arrangements. Instead of a pattern for each, the group of nodes between one tensor and
another is evaluated at a few hundred points, in double precision, and compared with the functions that operators exist
for. Equal to rounding everywhere means equal: these functions are smooth, or piecewise linear with few pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from hasten.transform.graph import Graph, attribute

__all__ = ["FUNCTIONS", "Region", "function_of", "regions"]

Array = np.ndarray[Any, Any]

_LARGEST = 14
_POINTS = np.concatenate([np.linspace(-12, 12, 481), np.array([-60.0, -30.0, -20.0, 20.0, 30.0, 60.0])])
# Constants are stored with 24 bits: 0.7978846 times 60 is off by 1e-6 before a tanh sees it.
_TOLERANCE = 3e-6


@dataclass(frozen=True, slots=True)
class Region:
    """Elementwise nodes, in order, from the one tensor that they read, `variable`, to what the last one makes."""

    variable: str
    nodes: tuple[onnx.NodeProto, ...]


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, 0)


def _erf(x: Array) -> Array:
    from scipy.special import erf

    return erf(x)


# Names are those of the ONNX operators, where there is one. Sources: the ONNX operator specifications; Hendrycks and
# Gimpel 2016 for GELU and its tanh form.
FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / np.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "hard_swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "sigmoid": _sigmoid,
    "swish": lambda x: x * _sigmoid(x),
    "softplus": _softplus,
    "mish": lambda x: x * np.tanh(_softplus(x)),
}

_UNARY: Mapping[str, Callable[[Array], Array]] = {
    "Erf": _erf, "Tanh": np.tanh, "Sigmoid": _sigmoid, "Exp": np.exp, "Log": np.log, "Sqrt": np.sqrt,
    "Neg": np.negative, "Abs": np.abs, "Reciprocal": np.reciprocal, "Relu": lambda x: np.maximum(x, 0),
    "Softplus": _softplus, "HardSwish": FUNCTIONS["hard_swish"], "Identity": lambda x: x,
}  # fmt: skip
_BINARY: Mapping[str, Callable[[Array, Array], Array]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power, "Min": np.minimum,
    "Max": np.maximum,
}  # fmt: skip
_OTHER = {"Clip", "HardSigmoid"}


def regions(graph: Graph, anchor: onnx.NodeProto) -> Iterator[Region]:
    """Groups that end in `anchor`, read one tensor, and whose inner tensors nobody else reads, small first."""
    if not _is_elementwise(graph, anchor):
        return
    inside = [anchor]
    while len(inside) <= _LARGEST:
        rim = list(dict.fromkeys(name for node in inside for name in node.input if _varies(graph, inside, name)))
        if len(rim) == 1:
            yield Region(rim[0], tuple(reversed(inside)))
        grown = next((node for name in rim if (node := _swallowed(graph, inside, name)) is not None), None)
        if grown is None:
            return
        inside.append(grown)


def function_of(graph: Graph, region: Region) -> str | None:
    """The name of the function that a region computes, if it is one of `FUNCTIONS`."""
    with np.errstate(all="ignore"):
        values = {region.variable: _POINTS}
        for node in _in_order(region):
            value = _value(graph, node, values)
            if value is None:
                return None
            values[node.output[0]] = value
        result = values[region.nodes[-1].output[0]]
        for name, function in FUNCTIONS.items():
            if np.allclose(result, function(_POINTS), rtol=_TOLERANCE, atol=_TOLERANCE):
                return name
    return None


def _is_elementwise(graph: Graph, node: onnx.NodeProto) -> bool:
    known = node.op_type in _UNARY or node.op_type in _BINARY or node.op_type in _OTHER
    if not known or node.domain not in ("", "ai.onnx") or len(node.output) != 1:
        return False
    if node.op_type in _BINARY and len(node.input) != 2:
        return False
    constants = [name for name in node.input if name and graph.is_constant(name)]
    return all(graph.scalar(name) is not None for name in constants) and len(constants) < len(node.input)


def _varies(graph: Graph, inside: list[onnx.NodeProto], name: str) -> bool:
    return bool(name) and not graph.is_constant(name) and all(name not in node.output for node in inside)


def _swallowed(graph: Graph, inside: list[onnx.NodeProto], name: str) -> onnx.NodeProto | None:
    """The maker of `name`, if it can join: elementwise, and read by nobody outside."""
    node = graph.producer(name)
    if node is None or name in graph.outputs or not _is_elementwise(graph, node):
        return None
    return node if all(any(reader is one for one in inside) for reader in graph.readers(name)) else None


def _in_order(region: Region) -> Iterator[onnx.NodeProto]:
    """Nodes after those that they read: a node can join a region before another that reads it does."""
    left, made = list(region.nodes), {region.variable}
    inner = {node.output[0] for node in left}
    while left:
        ready = [node for node in left if all(name not in inner or name in made for name in node.input)]
        yield from ready
        made.update(node.output[0] for node in ready)
        left = [node for node in left if node.output[0] not in made]


def _value(graph: Graph, node: onnx.NodeProto, values: Mapping[str, Array]) -> Array | None:
    inputs: list[Array] = []
    for name in node.input:
        scalar = graph.scalar(name) if name not in values else None
        inputs.append(values[name] if name in values else np.array(np.nan if scalar is None else scalar))
    if node.op_type in _UNARY:
        return _UNARY[node.op_type](inputs[0])
    if node.op_type in _BINARY:
        return _BINARY[node.op_type](inputs[0], inputs[1])
    if node.op_type == "HardSigmoid":
        return np.clip(attribute(node, "alpha", 0.2) * inputs[0] + attribute(node, "beta", 0.5), 0, 1)
    low = inputs[1] if len(inputs) > 1 and node.input[1] else attribute(node, "min", -np.inf)
    high = inputs[2] if len(inputs) > 2 and node.input[2] else attribute(node, "max", np.inf)
    return np.clip(inputs[0], low, high)
