"""Let the rest of a graph follow when its input is made smaller at the start.

Most operators take any size. What does not is repaired where it is plain what was meant: a Reshape with the old size
written out, a pooling over the whole map, a constant with one entry for each position. Everything else is a reason to
refuse, found by shape inference before and after, without running anything.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from hasten.model.onnx_file import OnnxModel
from hasten.model.shapes import Scope, Shape, inferred
from hasten.transform.onnx_graph import add_constant, drop_unused, replace_nodes, weights_of

__all__ = ["Slicer", "follow", "fresh", "insert_before_use", "regrouped"]

# Gives the nodes that cut an axis of a tensor to a size, keeping the part that was kept of the input, and the name of
# what they give: (graph, tensor, axis, size).
Slicer = Callable[[onnx.GraphProto, str, int, int], tuple[list[onnx.NodeProto], str]]

_MOST_ROUNDS = 64
_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Where", "And", "Or", "Equal", "Less", "Greater"})
_POOLS = {"AveragePool": "GlobalAveragePool", "MaxPool": "GlobalMaxPool"}


def follow(
    model: OnnxModel,
    after: onnx.ModelProto,
    smaller: Mapping[str, str],
    dims: Mapping[str, int],
    slicer: Slicer | None = None,
) -> str | None:
    """Repair `after`, which is `model` with a smaller size inside; say in words why that cannot be done, or None.

    `smaller` names, for each tensor that `insert_before_use` put in place, the input that it stands for. `dims` sets
    open input dimensions for inference, by place ("x[0]"); others count as 1. With `slicer`, constants that have one
    entry for each position are cut as well.
    """
    old = _Before(inferred(model, dims)[0], smaller)
    new = inferred(OnnxModel(model.path, after, ""), dims)[0]
    try:
        for _ in range(_MOST_ROUNDS):
            if not _repaired(after.graph, old, new, slicer):
                break
            new = inferred(OnnxModel(model.path, after, ""), dims)[0]
    except _Refusal as refusal:
        return str(refusal)
    drop_unused(after.graph)
    after.graph.ClearField("value_info")
    return _mismatch(model.proto.graph, after.graph, old, new)


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
    dimension. Where it was split, each part shrinks as dimensions of its size did elsewhere (`changed`); or, where
    only the outermost dimension of several shrank, the outermost part does: blocks of positions stay whole.
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
            outer = shrunk // math.prod(parts[1:])
            if math.prod(split) == shrunk:
                result += split
            elif last - first > 1 and new[first + 1 : last] == old[first + 1 : last] and outer:
                result += [outer, *parts[1:]]
            else:
                return None
    return tuple(result) if math.prod(result) == math.prod(new) else None


class _Before:
    """Shapes of tensors before anything was made smaller."""

    def __init__(self, scope: Scope, smaller: Mapping[str, str]) -> None:
        self._scope = scope
        self._smaller = smaller

    def shape(self, name: str) -> Shape | None:
        return self._scope.shape(self._smaller.get(name, name))


class _Refusal(Exception):
    """The reason why a graph cannot follow."""


def _repaired(graph: onnx.GraphProto, old: _Before, new: Scope, slicer: Slicer | None) -> bool:
    """Repair what can be seen to need it; say whether anything was changed."""
    changed = _changed(graph, old, new)
    some, refusal = False, None
    nodes: list[onnx.NodeProto] = []
    for node in list(graph.node):
        read = list(node.input)
        if node.op_type in ("Reshape", "Expand") and len(node.input) == 2:
            try:
                nodes += _repair_shape(graph, node, old, new, changed)
            except _Refusal as reason:
                # Only for good if nothing before it is repaired in this round, which may give it another input.
                refusal = refusal or reason
        elif node.op_type in _POOLS:
            some |= _repair_pool(node, old, new)
        elif slicer and node.op_type in _ELEMENTWISE:
            nodes += _repair_positions(graph, node, old, new, changed, slicer)
        some |= read != list(node.input)
        nodes.append(node)
    if refusal and not some:
        raise refusal
    if some:
        replace_nodes(graph, nodes)
    return some


def _changed(graph: onnx.GraphProto, old: _Before, new: Scope) -> dict[int, int]:
    """How dimensions shrank: old size to new size, sizes that shrank in two ways left out."""
    found: dict[int, set[int]] = {}
    for name in (name for node in graph.node for name in node.output):
        left, right = old.shape(name), new.shape(name)
        if left and right and len(left) == len(right):
            for a, b in zip(left, right, strict=True):
                if a != b:
                    found.setdefault(a, set()).add(b)
    return {a: b.pop() for a, b in found.items() if len(b) == 1}


def _repair_shape(
    graph: onnx.GraphProto, node: onnx.NodeProto, old: _Before, new: Scope, changed: Mapping[int, int]
) -> list[onnx.NodeProto]:
    """Write the new sizes where the target of a Reshape or Expand has the old ones; returns nodes that this needs."""
    left, right, target = old.shape(node.input[0]), new.shape(node.input[0]), old.shape(node.output[0])
    if left is None or right is None or target is None or len(left) != len(right):
        return []
    if node.op_type == "Reshape":
        wanted = regrouped(left, target, right, changed)
    else:
        aligned = (1,) * (len(target) - len(right)) + right
        wanted = tuple(changed.get(a, a) if b == 1 else b for a, b in zip(target, aligned, strict=True))
    if wanted is None:
        raise _Refusal(f"{_place(node)} has the old size written into it in a way that cannot be rewritten.")
    producers = {name: item for item in graph.node for name in item.output}
    nodes, node.input[1] = _rewritten(graph, node.input[1], wanted, producers, weights_of(graph), old)
    return nodes


def _rewritten(
    graph: onnx.GraphProto,
    name: str,
    wanted: Shape,
    producers: Mapping[str, onnx.NodeProto],
    weights: Mapping[str, onnx.TensorProto],
    old: _Before,
) -> tuple[list[onnx.NodeProto], str]:
    """Follow a shape back to the constants that it is put together from, and replace what they say; the new name.

    Zero and minus one stay: they mean "as it comes". What is computed from the input's own shape follows by itself.
    """
    if name in weights:
        return [], _rewritten_constant(graph, name, wanted, weights[name])
    node = producers.get(name)
    if node is None or node.op_type not in ("Cast", "Identity", "Concat"):
        return [], name
    nodes: list[onnx.NodeProto] = []
    inputs: list[str] = []
    start = 0
    for item in node.input:
        shape = old.shape(item)
        size = shape[0] if shape else len(wanted)
        more, result = _rewritten(graph, item, wanted[start : start + size], producers, weights, old)
        nodes += more
        inputs.append(result)
        start += size
    if inputs == list(node.input):
        return [], name
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    copied.output[0] = copied.name = fresh(graph, f"{name}_shrunk_{len(graph.initializer)}")
    copied.input[:] = inputs
    return [*nodes, copied], copied.output[0]


def _rewritten_constant(graph: onnx.GraphProto, name: str, wanted: Shape, tensor: onnx.TensorProto) -> str:
    if tensor.data_location == onnx.TensorProto.EXTERNAL or list(tensor.dims) != [len(wanted)]:
        return name
    written = numpy_helper.to_array(tensor)
    fixed = np.array([size if was > 0 else was for was, size in zip(written, wanted, strict=True)], written.dtype)
    return name if np.array_equal(fixed, written) else add_constant(graph, f"{name}_shrunk", fixed)


def _repair_pool(node: onnx.NodeProto, old: _Before, new: Scope) -> bool:
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
    old: _Before,
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
                cut, node.input[place] = slicer(graph, node.input[place], axis, changed[size])
                nodes += cut
    return nodes


def _mismatch(before: onnx.GraphProto, after: onnx.GraphProto, old: _Before, new: Scope) -> str | None:
    """Say in words where the smaller graph does not fit together or gives something else, or return None."""
    for node in after.node:
        problem = _node_problem(node, old, new)
        if problem:
            return problem
    for value in before.output:
        left, right = old.shape(value.name), new.shape(value.name)
        if left != right:
            return f"the output {value.name!r} would have shape {list(right or ())} instead of {list(left or ())}."
    return None


def _node_problem(node: onnx.NodeProto, old: _Before, new: Scope) -> str | None:
    if node.op_type in ("Gemm", "MatMul") and not _product_fits(node, new):
        return f"{_place(node)} is a dense layer over all positions: the network is made for one size."
    for name in node.output:
        left, right = old.shape(name), new.shape(name)
        if left is not None and right is None:
            return f"{_place(node)} does not take the smaller size, as far as can be said without running it."
        if right is not None and min(right, default=1) < 1 and left is not None and min(left, default=1) > 0:
            return f"{_place(node)} would have nothing left to work on."
    if node.op_type == "Reshape" and not _same_count(node.input[0], node.output[0], new):
        return f"{_place(node)} has the old size written into it."
    return None


def _same_count(source: str, result: str, scope: Scope) -> bool:
    left, right = scope.shape(source), scope.shape(result)
    return left is None or right is None or math.prod(left) == math.prod(right)


def _product_fits(node: onnx.NodeProto, scope: Scope) -> bool:
    """Whether the axes agree that a matrix product sums over."""
    left, right = scope.shape(node.input[0]), scope.shape(node.input[1])
    flipped = {item.name: item.i for item in node.attribute}
    if not left or not right:
        return True
    return left[-2 if flipped.get("transA") else -1] == right[-1 if flipped.get("transB") else -2 if right[1:] else 0]


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
