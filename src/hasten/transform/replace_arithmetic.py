"""Rules of `replace_operators` for elementwise arithmetic."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from hasten.transform.dims import Shape
from hasten.transform.graph import Graph
from hasten.transform.rewrite import Change

__all__ = ["division", "expand", "power"]

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
_BROADCAST = frozenset({
    "Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Where", "Equal", "Greater", "Less", "GreaterOrEqual",
    "LessOrEqual", "And", "Or", "Xor", "Sum", "Mean",
})  # fmt: skip


def power(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
    """A power with a small fixed exponent is a product, a root or a reciprocal."""
    exponent = graph.scalar(anchor.input[1]) if anchor.op_type == "Pow" and not anchor.domain else None
    if exponent is None or (graph.rank(anchor.input[1]) or 0) > (graph.rank(anchor.input[0]) or 0):
        return None
    if graph.type(anchor.output[0]) not in _FLOATS:
        return None
    x, y = anchor.input[0], anchor.output[0]
    inner = f"{y}/inner"
    if exponent == 2:
        return Change("power", [graph.node("Mul", [x, x], y)])
    if exponent == 3:
        inner = graph.new_name(inner)
        return Change("power", [graph.node("Mul", [x, x], inner), graph.node("Mul", [inner, x], y)])
    if exponent in (0.5, -1):
        return Change("power", [graph.node("Sqrt" if exponent > 0 else "Reciprocal", [x], y)])
    if exponent == -0.5:
        inner = graph.new_name(inner)
        return Change("power", [graph.node("Sqrt", [x], inner), graph.node("Reciprocal", [inner], y)])
    return None


def division(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
    """A division by constants is a multiplication with their reciprocals."""
    if anchor.op_type != "Div" or anchor.domain or graph.is_constant(anchor.input[0]):
        return None
    value = graph.constant(anchor.input[1])
    if value is None or value.dtype.kind != "f":
        return None
    with np.errstate(all="ignore"):
        inverse = (1 / value.astype(np.float64)).astype(value.dtype)
    # A reciprocal that is subnormal, or none, would cost precision or speed.
    if not np.isfinite(inverse).all() or np.any(np.abs(inverse) < np.finfo(value.dtype).tiny):
        return None
    name = graph.add_constant(f"{anchor.input[1]}/reciprocal", inverse)
    return Change("division", [graph.node("Mul", [anchor.input[0], name], anchor.output[0])])


def expand(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
    """An elementwise operator broadcasts by itself what was expanded for it."""
    if anchor.op_type not in _BROADCAST or anchor.domain:
        return None
    wanted = graph.shape(anchor.output[0])
    inputs = list(anchor.input)
    for place, name in enumerate(anchor.input):
        node = graph.producer(name, "Expand")
        if node is None or wanted is None:
            continue
        tried = [*inputs[:place], node.input[0], *inputs[place + 1 :]]
        if _broadcast([graph.shape(one) for one in tried]) == wanted:
            inputs = tried
    if inputs == list(anchor.input):
        return None
    made = onnx.NodeProto()
    made.CopyFrom(anchor)
    del made.input[:]
    made.input.extend(inputs)
    return Change("expand", [made])


def _broadcast(shapes: list[Shape | None]) -> Shape | None:
    """The shape that tensors of these shapes give together; None where they do not, or one is unknown."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        return None
    rank = max(map(len, known))
    columns = zip(*((1,) * (rank - len(shape)) + shape for shape in known), strict=True)
    sizes = [{size for size in column if size != 1} or {1} for column in columns]
    return tuple(min(size, key=str) for size in sizes) if all(len(size) == 1 for size in sizes) else None
