"""The rule of `fuse` for multi-head attention (Vaswani et al. 2017).

Matched is softmax(scale * Q K' + mask) V between the split into heads and their merging, as PyTorch's exporters write
it: the scale on the scores, on the queries or half on either side; the keys transposed once, twice or through three
dimensions; queries, keys and values from projections of their own or packed into one tensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from hasten.transform.dims import Dim, Shape
from hasten.transform.fuse_heads import TO_HEADS, Heads, heads_of, key_heads, rows_of
from hasten.transform.graph import CONTRIB, Graph, attribute
from hasten.transform.rewrite import Change, Rule

__all__ = ["attention_rule"]


def attention_rule(*, contrib: bool) -> Rule:
    """The rule: Attention from operator set 23 on, before that ONNX Runtime's MultiHeadAttention with `contrib`."""

    def rule(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
        if anchor.op_type != "Reshape" or anchor.domain or not (contrib or graph.opset >= 23):
            return None
        found = _attention(graph, anchor)
        if found is None or graph.type(anchor.output[0]) != TensorProto.FLOAT:
            return None
        return Change("attention", _nodes(graph, found, anchor.output[0]))

    return rule


@dataclass(frozen=True, slots=True)
class _Attention:
    query: Heads
    key: Heads
    value: Heads
    heads: int
    scale: float
    mask: str
    time: Dim


def _attention(graph: Graph, anchor: onnx.NodeProto) -> _Attention | None:
    merged = graph.producer(anchor.input[0], "Transpose")
    if merged is None or attribute(merged, "perm") != TO_HEADS:
        return None
    product = graph.producer(merged.input[0], "MatMul")
    weights = graph.producer(product.input[0], "Softmax") if product is not None else None
    if product is None or weights is None or attribute(weights, "axis", -1) not in (-1, 3):
        return None
    scores, scale, mask = _scores(graph, weights.input[0])
    if scores is None or not all(map(graph.private, (merged.input[0], anchor.input[0], weights.output[0]))):
        return None
    left, on_queries = _unscaled(graph, scores.input[0])
    right, on_keys = _unscaled(graph, scores.input[1])
    key = _untransposed(graph, right)
    if key is None:
        return None
    key, below = _unscaled(graph, key)
    shape = graph.shape(left)
    query, value = heads_of(graph, left), heads_of(graph, product.input[1])
    keys = heads_of(graph, key) or key_heads(graph, right)
    if query is None or keys is None or value is None or shape is None or not isinstance(shape[1], int):
        return None
    if not shape[1] == query.count == keys.count == value.count:
        return None
    if not _is_whole(graph, anchor, shape) or not _mask_fits(graph, mask, shape):
        return None
    return _Attention(query, keys, value, shape[1], scale * on_queries * on_keys * below, mask, shape[2])


def _scores(graph: Graph, name: str) -> tuple[onnx.NodeProto | None, float, str]:
    """The product of queries and keys below a softmax, the scale on it, and the mask added to it."""
    mask, scale = "", 1.0
    added = graph.producer(name, "Add")
    if added is not None:
        for part, other in (list(added.input), list(added.input)[::-1]):
            inner, factor = _unscaled(graph, part)
            product = graph.producer(inner, "MatMul")
            if product is not None and graph.rank(inner) == 4 and not graph.is_constant(product.input[1]):
                return product, factor, other
        return None, scale, mask
    inner, factor = _unscaled(graph, name)
    return graph.producer(inner, "MatMul"), factor, mask


def _unscaled(graph: Graph, name: str) -> tuple[str, float]:
    """Look through a product with, or a quotient by, a number that the graph's fixed sizes determine."""
    node = graph.producer(name, "Mul", "Div")
    if node is None:
        return name, 1.0
    number = _number(graph, node.input[1])
    if number:
        return node.input[0], number if node.op_type == "Mul" else 1 / number
    number = _number(graph, node.input[0]) if node.op_type == "Mul" else None
    return (node.input[1], number) if number else (name, 1.0)


def _number(graph: Graph, name: str) -> float | None:
    """A scalar: constant, or worked out from constants and fixed sizes, as the scale of attention often is."""
    value = graph.scalar(name)
    node = graph.producer(name, "Cast", "Sqrt", "Div", "Mul", "Slice", "Gather", "Squeeze")
    if value is not None or node is None:
        return value
    if node.op_type in ("Cast", "Sqrt", "Squeeze"):
        inner = _number(graph, node.input[0])
        return inner if inner is None or node.op_type != "Sqrt" else math.sqrt(inner)
    if node.op_type in ("Div", "Mul"):
        left, right = (_number(graph, part) for part in node.input)
        if left is None or right is None or (node.op_type == "Div" and not right):
            return None
        return left / right if node.op_type == "Div" else left * right
    return _size(graph, node)


def _size(graph: Graph, node: onnx.NodeProto) -> float | None:
    """One fixed dimension, taken from a shape by Slice or Gather."""
    whole = graph.producer(node.input[0], "Shape")
    shape = graph.shape(whole.input[0]) if whole is not None else None
    start = graph.scalar(node.input[1])
    if whole is None or shape is None or start is None:
        return None
    sizes = shape[attribute(whole, "start", 0) : attribute(whole, "end", len(shape))]
    if node.op_type == "Slice":
        end = graph.scalar(node.input[2])
        picked = () if end is None else sizes[int(start) : max(-len(sizes), min(int(end), len(sizes)))]
    else:
        picked = (sizes[int(start)],) if -len(sizes) <= start < len(sizes) else ()
    return float(picked[0]) if len(picked) == 1 and isinstance(picked[0], int) else None


def _untransposed(graph: Graph, name: str) -> str | None:
    """From keys [batch, heads, channels, time] back to [batch, heads, time, channels]."""
    node = graph.producer(name, "Transpose")
    if node is not None:
        perm = attribute(node, "perm")
        return node.input[0] if perm == [0, 1, 3, 2] else name if perm == [0, 2, 3, 1] else None
    outer = graph.producer(name, "Reshape")
    moved = graph.producer(outer.input[0], "Transpose") if outer is not None else None
    inner = graph.producer(moved.input[0], "Reshape") if moved is not None else None
    if moved is None or inner is None or attribute(moved, "perm") != [0, 2, 1]:
        return None
    before, after = graph.shape(inner.input[0]), graph.shape(name)
    if before is None or after is None or len(before) != 4:
        return None
    return inner.input[0] if (*before[:2], before[3], before[2]) == after else None


def _is_whole(graph: Graph, anchor: onnx.NodeProto, query: Shape) -> bool:
    """Whether the anchor merges exactly the heads."""
    merged, result = graph.shape(anchor.input[0]), graph.shape(anchor.output[0])
    if merged is None or result is None or len(result) != 3 or len(merged) != 4:
        return False
    sizes = [size for size in merged[2:] if isinstance(size, int)]
    return len(sizes) == 2 and result == (*merged[:2], math.prod(sizes)) and merged[:2] == (query[0], query[2])


def _mask_fits(graph: Graph, mask: str, query: Shape) -> bool:
    if not mask:
        return True
    shape = graph.shape(mask)
    if shape is None or not 2 <= len(shape) <= 4 or graph.type(mask) != TensorProto.FLOAT:
        return False
    full = (1,) * (4 - len(shape)) + shape
    # The last dimension, that of the keys, must be there: the kernels do not broadcast it.
    return all(size in (1, wanted) for size, wanted in zip(full[:3], query[:3], strict=True)) and full[3] != 1


def _nodes(graph: Graph, found: _Attention, output: str) -> list[onnx.NodeProto]:
    nodes: list[onnx.NodeProto] = []
    query, key, value = (rows_of(graph, part, output, nodes) for part in (found.query, found.key, found.value))
    mask = _whole_mask(graph, found, query, nodes) if found.mask else ""
    if graph.opset >= 23:
        inputs = [query, key, value, *([mask] if mask else [])]
        settings = {"q_num_heads": found.heads, "kv_num_heads": found.heads, "scale": found.scale}
        return [*nodes, graph.node("Attention", inputs, output, attributes=settings)]
    inputs = [query, key, value, *(["", "", mask] if mask else [])]
    settings = {"num_heads": found.heads, "scale": found.scale}
    return [*nodes, graph.node("MultiHeadAttention", inputs, output, domain=CONTRIB, attributes=settings)]


def _whole_mask(graph: Graph, found: _Attention, query: str, nodes: list[onnx.NodeProto]) -> str:
    """The mask with a row for each query, which the operators ask for; layers with the same mask share it."""
    shape = graph.shape(found.mask)
    if shape is not None and len(shape) == 4 and shape[2] == found.time:
        return found.mask
    known = f"mask:{found.mask}:{found.time}"
    if known not in graph.memo:
        sizes, time, wanted, whole = (
            graph.new_name(f"{found.mask}/{word}") for word in ("sizes", "time", "shape", "whole")
        )
        one = graph.add_constant(f"{found.mask}/one", np.array([1], np.int64))
        nodes += [
            graph.node("Shape", [query], sizes),
            graph.node("Gather", [sizes, one], time),
            graph.node("Concat", [one, one, time, one], wanted, axis=0),
            graph.node("Expand", [found.mask, wanted], whole),
        ]
        graph.memo[known] = [whole]
    return graph.memo[known][0]
