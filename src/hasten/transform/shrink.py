"""Let the rest of a graph follow when its input is made smaller at the start.

Most operators take any size. What does not is repaired where it is plain what was meant: a Reshape with the old size
written out, a pooling over the whole map, a constant with one entry for each position. Everything else is a reason to
refuse, found by shape inference before and after, without running anything.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from hasten.model.onnx_file import OnnxModel
from hasten.model.shapes import Scope, Shape, inferred
from hasten.transform.onnx_graph import add_constant, drop_unused, replace_nodes, weights_of

__all__ = ["Slicer", "follow", "fresh", "insert_before_use", "regrouped"]

# Gives the nodes that cut axis `axis` of the tensor `source` as the input was cut, and the name of what they give.
Slicer = Callable[[onnx.GraphProto, str, int], tuple[list[onnx.NodeProto], str]]

_MOST_ROUNDS = 64
_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Where", "And", "Or", "Equal", "Less", "Greater"})
_POOLS = {"AveragePool": "GlobalAveragePool", "MaxPool": "GlobalMaxPool"}


def follow(
    path: Path, before: onnx.ModelProto, after: onnx.ModelProto, dims: Mapping[str, int], slicer: Slicer | None = None
) -> str | None:
    """Repair `after`, which is `before` with a smaller size inside; say in words why that cannot be done, or None.

    `dims` sets open input dimensions for inference, by place ("x[0]"); others count as 1. With `slicer`, constants
    that have one entry for each position are cut as well.
    """
    old = inferred(OnnxModel(path, before, ""), dims)[0]
    new = inferred(OnnxModel(path, after, ""), dims)[0]
    try:
        for _ in range(_MOST_ROUNDS):
            if not _repaired(after.graph, old, new, slicer):
                break
            new = inferred(OnnxModel(path, after, ""), dims)[0]
    except _Refusal as refusal:
        return str(refusal)
    drop_unused(after.graph)
    after.graph.ClearField("value_info")
    return _mismatch(before.graph, old, new)


def fresh(graph: onnx.GraphProto, name: str) -> str:
    """`name`, or with a number behind it where the graph has a tensor of that name."""
    taken = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    taken |= {out for node in graph.node for out in node.output}
    return next(item for number in itertools.count() if (item := f"{name}_{number}" if number else name) not in taken)


def insert_before_use(graph: onnx.GraphProto, name: str, nodes: Sequence[onnx.NodeProto], result: str) -> None:
    """Let everything that read the graph input `name` read `result`, which `nodes` compute from it."""
    _rename(graph, name, result)
    replace_nodes(graph, [*nodes, *graph.node])


def regrouped(old: Shape, target: Shape, new: Shape, changed: Mapping[int, int]) -> Shape | None:
    """What `target`, a reshape of `old`, becomes for an input of shape `new`; None where that is not plain.

    Both shapes fall into groups of equal products. A group that shrank gives its product where it was merged into one
    dimension; where it was split, each part shrinks as dimensions of its size did elsewhere (`changed`).
    """
    result: list[int] = []
    if math.prod(old) != math.prod(target) or 0 in target:
        return None
    for first, last, start, stop in _groups(old, target):
        parts, shrunk = target[start:stop], math.prod(new[first:last])
        if new[first:last] == old[first:last]:
            result += parts
        elif stop - start == 1:
            result.append(shrunk)
        else:
            split = [changed.get(part, part) for part in parts]
            if math.prod(split) != shrunk:
                return None
            result += split
    return tuple(result)


class _Refusal(Exception):
    """The reason why a graph cannot follow."""


def _repaired(graph: onnx.GraphProto, old: Scope, new: Scope, slicer: Slicer | None) -> bool:
    """Repair what can be seen to need it; say whether anything was changed."""
    changed = _changed(graph, old, new)
    weights = weights_of(graph)
    some = False
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Reshape":
            some |= _repair_reshape(graph, node, weights, old, new, changed)
        elif node.op_type in _POOLS:
            some |= _repair_pool(node, old, new)
        elif slicer and node.op_type in _ELEMENTWISE:
            read = list(node.input)
            nodes += _repair_positions(graph, node, old, new, changed, slicer)
            some |= read != list(node.input)
        nodes.append(node)
    if some:
        replace_nodes(graph, nodes)
    return some


def _changed(graph: onnx.GraphProto, old: Scope, new: Scope) -> dict[int, int]:
    """How dimensions shrank: old size to new size, sizes that shrank in two ways left out."""
    found: dict[int, set[int]] = {}
    for name in (name for node in graph.node for name in node.output):
        left, right = old.shape(name), new.shape(name)
        if left and right and len(left) == len(right):
            for a, b in zip(left, right, strict=True):
                if a != b:
                    found.setdefault(a, set()).add(b)
    return {a: b.pop() for a, b in found.items() if len(b) == 1}


def _repair_reshape(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    weights: Mapping[str, onnx.TensorProto],
    old: Scope,
    new: Scope,
    changed: Mapping[int, int],
) -> bool:
    source, target = node.input[0], old.shape(node.output[0])
    left, right = old.shape(source), new.shape(source)
    tensor = weights.get(node.input[1]) if len(node.input) > 1 else None
    if tensor is None or left is None or right is None or target is None or len(left) != len(right):
        return False
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return False
    written = numpy_helper.to_array(tensor).reshape(-1)
    # A chain that computes the shape was folded by inference; what is written out must agree with it in length.
    if written.size != len(target):
        return False
    wanted = regrouped(left, target, right, changed)
    if wanted is None:
        raise _Refusal(f"{_place(node)} has the old size written into it in a way that cannot be rewritten.")
    fixed = np.array([size if was > 0 else was for was, size in zip(written, wanted, strict=True)], np.int64)
    if np.array_equal(fixed, written):
        return False
    node.input[1] = add_constant(graph, f"{node.output[0]}_shape", fixed)
    return True


def _repair_pool(node: onnx.NodeProto, old: Scope, new: Scope) -> bool:
    """A pooling whose window is the whole map stays one over the whole map."""
    left, right, out = old.shape(node.input[0]), new.shape(node.input[0]), old.shape(node.output[0])
    settings = {item.name: list(item.ints) for item in node.attribute}
    if left is None or right is None or out is None or len(node.output) > 1 or any(settings.get("pads", [])):
        return False
    whole = tuple(settings.get("kernel_shape", [])) == left[2:] and set(out[2:]) == {1}
    if not whole or left == right:
        return False
    node.op_type = _POOLS[node.op_type]
    del node.attribute[:]
    return True


def _repair_positions(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    old: Scope,
    new: Scope,
    changed: Mapping[int, int],
    slicer: Slicer,
) -> list[onnx.NodeProto]:
    """Cut operands that kept the old length where another operand has the new one."""
    shapes = [new.shape(name) for name in node.input]
    if any(shape is None for shape in shapes):
        return []
    known = [shape for shape in shapes if shape is not None]
    nodes: list[onnx.NodeProto] = []
    for place, shape in enumerate(known):
        for axis, size in enumerate(shape):
            sizes = {other[axis - len(shape)] for other in known if len(other) >= len(shape) - axis} - {1}
            kept = old.shape(node.input[place]) == shape
            if kept and size > 1 and changed.get(size) in sizes:
                cut, node.input[place] = slicer(graph, node.input[place], axis)
                nodes += cut
    return nodes


def _mismatch(graph: onnx.GraphProto, old: Scope, new: Scope) -> str | None:
    """Say in words where the smaller graph does not fit together or gives something else, or return None."""
    for node in graph.node:
        problem = _node_problem(node, old, new)
        if problem:
            return problem
    for value in graph.output:
        left, right = old.shape(value.name), new.shape(value.name)
        if left != right:
            return f"the output {value.name!r} would have shape {list(right or ())} instead of {list(left or ())}."
    return None


def _node_problem(node: onnx.NodeProto, old: Scope, new: Scope) -> str | None:
    for name in node.output:
        left, right = old.shape(name), new.shape(name)
        if left is not None and right is None:
            return f"{_place(node)} does not take the smaller size, as far as can be said without running it."
        if right is not None and min(right, default=1) < 1 and left is not None and min(left, default=1) > 0:
            return f"{_place(node)} would have nothing left to work on."
    if node.op_type == "Reshape" and not _same_count(node.input[0], node.output[0], new):
        return f"{_place(node)} has the old size written into it."
    if node.op_type == "Gemm" and not _gemm_fits(node, new):
        return f"{_place(node)} is a dense layer over all positions: the network is made for one size."
    return None


def _same_count(source: str, result: str, scope: Scope) -> bool:
    left, right = scope.shape(source), scope.shape(result)
    return left is None or right is None or math.prod(left) == math.prod(right)


def _gemm_fits(node: onnx.NodeProto, scope: Scope) -> bool:
    left, right = scope.shape(node.input[0]), scope.shape(node.input[1])
    flipped = {item.name: item.i for item in node.attribute}
    if left is None or right is None:
        return True
    return left[0 if flipped.get("transA") else 1] == right[1 if flipped.get("transB") else 0]


def _groups(old: Shape, target: Shape) -> Iterable[tuple[int, int, int, int]]:
    """Split two shapes of equal product into the shortest runs of equal product."""
    first = start = 0
    while first < len(old) or start < len(target):
        last, stop = min(first + 1, len(old)), min(start + 1, len(target))
        while math.prod(old[first:last]) != math.prod(target[start:stop]):
            if math.prod(old[first:last]) < math.prod(target[start:stop]):
                last += 1
            else:
                stop += 1
        yield first, last, start, stop
        first, start = last, stop


def _rename(graph: onnx.GraphProto, name: str, result: str) -> None:
    """Let all readers of `name` read `result`, in subgraphs too unless these have a tensor of that name themselves."""
    for node in graph.node:
        for place, item in enumerate(node.input):
            if item == name:
                node.input[place] = result
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                own = {value.name for value in inner.input} | {out for item in inner.node for out in item.output}
                if inner.node and name not in own:
                    _rename(inner, name, result)
                    for value in inner.output:
                        if value.name == name:
                            value.name = result


def _place(node: onnx.NodeProto) -> str:
    return f"the node {node.name or node.output[0]!r} ({node.op_type})"
