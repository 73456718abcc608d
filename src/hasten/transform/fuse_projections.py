"""The rule of `fuse` for projections that read the same tensor: one large product instead of several small ones."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from hasten.transform.fuse_heads import split_node
from hasten.transform.graph import Graph, constants_first
from hasten.transform.rewrite import Change

__all__ = ["parallel_projections"]


def parallel_projections(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
    """Products of one tensor with several weights become one product with them side by side, and a split."""
    group = _group(graph, anchor)
    if len(group) < 2 or group[0][0] is not anchor:
        return None
    weights = [graph.constant(product.input[1]) for product, _, _ in group]
    biases = [graph.constant(bias) for _, _, bias in group if bias]
    joined = np.concatenate([value for value in weights if value is not None], axis=1)
    nodes, current = [], graph.new_name(f"{anchor.output[0]}/joined")
    nodes.append(
        graph.node("MatMul", [anchor.input[0], graph.add_constant(f"{anchor.output[0]}/weights", joined)], current)
    )
    if biases:
        bias = graph.add_constant(
            f"{anchor.output[0]}/biases", np.concatenate([value for value in biases if value is not None])
        )
        shifted = graph.new_name(f"{anchor.output[0]}/shifted")
        nodes.append(graph.node("Add", [current, bias], shifted))
        current = shifted
    widths = [value.shape[1] for value in weights if value is not None]
    split = split_node(graph, current, [last.output[0] for _, last, _ in group], widths)
    for product, last, _ in group:
        if last is not product:
            graph.remove(last)
        if product is not anchor:
            graph.remove(product)
    return Change("parallel_projections", [*nodes, split])


# A product, the last node of its projection (itself, or the addition of a bias), and the name of the bias.
_Projection = tuple[onnx.NodeProto, onnx.NodeProto, str]


def _group(graph: Graph, anchor: onnx.NodeProto) -> list[_Projection]:
    """The projections that can be joined with that of `anchor`, in graph order; all with a bias or all without."""
    if anchor.op_type != "MatMul" or anchor.domain or graph.type(anchor.output[0]) != TensorProto.FLOAT:
        return []
    found: list[_Projection] = []
    for node in graph.in_order(graph.readers(anchor.input[0])):
        if node.op_type != "MatMul" or node.domain or node.input[0] != anchor.input[0] or not graph.allowed(node):
            continue
        tensor = graph.tensor(node.input[1])
        if tensor is not None and len(tensor.dims) == 2 and tensor.data_type == TensorProto.FLOAT:
            found.append(_projection(graph, node, tensor.dims[1]))
    biased = [bool(bias) for _, _, bias in found]
    return found if len(set(biased)) == 1 and all(last.output[0] not in graph.outputs for _, last, _ in found) else []


def _projection(graph: Graph, product: onnx.NodeProto, width: int) -> _Projection:
    name = product.output[0]
    reader = graph.readers(name)[0] if graph.private(name) else None
    both = constants_first(graph, reader) if reader is not None and reader.op_type == "Add" else None
    if both is None or reader is None or graph.shape(both[0]) != (width,):
        return product, product, ""
    return product, reader, both[0]
