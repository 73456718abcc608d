"""Rules of `layout` that look at one transpose and its neighbour."""

from __future__ import annotations

import numpy as np
import onnx

from hasten.transform.graph import Graph, attribute
from hasten.transform.rewrite import Change

__all__ = ["absorb_in_gemm", "bypass", "merge_transposes", "permutation", "transpose_to_reshape"]


def permutation(graph: Graph, node: onnx.NodeProto | None) -> list[int] | None:
    """The permutation of a transpose; None for other nodes and where the rank is unknown."""
    if node is None or node.op_type != "Transpose" or node.domain:
        return None
    perm = attribute(node, "perm")
    rank = graph.rank(node.input[0])
    return list(perm) if perm else None if rank is None else list(range(rank))[::-1]


def merge_transposes(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
    """Two transposes in a row become one, or none."""
    outer = permutation(graph, anchor)
    if outer is None:
        return None
    before = graph.producer(anchor.input[0], "Transpose")
    inner = permutation(graph, before) if before is not None else list(range(len(outer)))
    if inner is None or (before is not None and not graph.allowed(before)):
        return None
    source = before.input[0] if before is not None else anchor.input[0]
    both = [inner[axis] for axis in outer]
    if both == sorted(both):
        return bypass(graph, anchor, source)
    if before is None:
        return None
    return Change("merged", [graph.node("Transpose", [source], anchor.output[0], perm=both)])


def bypass(graph: Graph, anchor: onnx.NodeProto, source: str) -> Change:
    """Let everybody read `source` in place of what the anchor makes."""
    output = anchor.output[0]
    if output not in graph.outputs and not graph.read_in_subgraph(output):
        graph.redirect(output, source)
        graph.drop(anchor)
        return Change("merged", [])
    # Outputs and subgraphs know the tensor by its name.
    identity = graph.node("Identity", [source], output)
    graph.put(anchor, [identity])
    maker = graph.producer(source)
    if maker is not None and source not in graph.outputs and graph.private(source):
        graph.remove(identity)
        made = onnx.NodeProto()
        made.CopyFrom(maker)
        del made.output[:]
        made.output.extend(output if name == source else name for name in maker.output)
        graph.put(maker, [made])
    return Change("merged", [])


def absorb_in_gemm(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
    """A matrix product with `transA` and `transB` needs no transposed input."""
    if anchor.op_type != "Gemm" or anchor.domain:
        return None
    inputs, flipped = list(anchor.input), dict[str, int]()
    for place, name in enumerate(("transA", "transB")):
        node = graph.producer(inputs[place], "Transpose")
        if node is not None and permutation(graph, node) == [1, 0] and graph.allowed(node):
            inputs[place] = node.input[0]
            flipped[name] = 1 - int(attribute(anchor, name, 0))
    if not flipped:
        return None
    made = onnx.NodeProto()
    made.CopyFrom(anchor)
    kept = [item for item in anchor.attribute if item.name not in flipped]
    del made.attribute[:], made.input[:]
    made.attribute.extend([*kept, *(onnx.helper.make_attribute(name, value) for name, value in flipped.items())])
    made.input.extend(inputs)
    return Change("absorbed", [made])


def transpose_to_reshape(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
    """A transpose that only moves dimensions of size one moves no data."""
    perm = permutation(graph, anchor)
    shape = graph.shape(anchor.input[0]) if perm is not None else None
    if perm is None or shape is None or len(shape) != len(perm):
        return None
    moving = [axis for axis in perm if shape[axis] != 1]
    sizes = [shape[axis] for axis in perm]
    if moving != sorted(moving) or sum(not isinstance(size, int) for size in sizes) > 1 or 0 in sizes:
        return None
    wanted = np.array([size if isinstance(size, int) else -1 for size in sizes], np.int64)
    where = graph.add_constant(f"{anchor.output[0]}/shape", wanted)
    return Change("reshape", [graph.node("Reshape", [anchor.input[0], where], anchor.output[0])])
