"""Where attention heads come from: projections of their own, or one that holds queries, keys and values together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from hasten.transform.graph import Graph, attribute

__all__ = ["TO_HEADS", "Heads", "heads_of", "key_heads", "rows_of", "split_node"]

TO_HEADS = [0, 2, 1, 3]
# Batch, time, (query, key, value), head, channel -> (query, key, value), batch, head, time, channel.
_UNPACK = [2, 0, 3, 1, 4]


@dataclass(frozen=True, slots=True)
class Heads:
    """Where heads come from: a tensor [batch, time, heads * channels], or the `part`-th third of one."""

    source: str
    part: int | None
    count: int


def heads_of(graph: Graph, name: str) -> Heads | None:
    """Where a tensor [batch, heads, time, channels] was split into heads."""
    node = graph.producer(name, "Transpose")
    if node is not None:
        return _split(graph, node.input[0]) if attribute(node, "perm") == TO_HEADS else None
    return _packed(graph, name)


def key_heads(graph: Graph, name: str) -> Heads | None:
    """Where keys [batch, heads, channels, time] were split, if one transpose did it all."""
    node = graph.producer(name, "Transpose")
    if node is None or attribute(node, "perm") != [0, 2, 3, 1]:
        return None
    return _split(graph, node.input[0])


def _split(graph: Graph, name: str) -> Heads | None:
    node = graph.producer(name, "Reshape")
    if node is None:
        return None
    before, after = graph.shape(node.input[0]), graph.shape(name)
    if before is None or after is None or len(before) != 3 or len(after) != 4 or before[:2] != after[:2]:
        return None
    return Heads(node.input[0], None, after[2]) if isinstance(after[2], int) and isinstance(after[3], int) else None


def _packed(graph: Graph, name: str) -> Heads | None:
    """Match one of the three parts of a packed projection, as vision transformers have it."""
    picked = _picked(graph, name)
    moved = graph.producer(picked[0], "Transpose") if picked else None
    if picked is None or moved is None or attribute(moved, "perm") != _UNPACK:
        return None
    split = graph.producer(moved.input[0], "Reshape")
    if split is None:
        return None
    before, after = graph.shape(split.input[0]), graph.shape(moved.input[0])
    if before is None or after is None or len(before) != 3 or len(after) != 5 or before[:2] != after[:2]:
        return None
    if after[2] != 3 or not isinstance(after[3], int) or not isinstance(after[4], int) or picked[1] not in (0, 1, 2):
        return None
    return Heads(split.input[0], picked[1], after[3])


def _picked(graph: Graph, name: str) -> tuple[str, int] | None:
    """The tensor whose `index`-th entry along the first axis `name` is, and that index."""
    node = graph.producer(name, "Squeeze", "Gather")
    if node is None:
        return None
    if node.op_type == "Gather":
        index = graph.constant(node.input[1])
        plain = attribute(node, "axis", 0) == 0 and index is not None and index.ndim == 0
        return (node.input[0], int(index)) if plain and index is not None else None
    cut = graph.producer(node.input[0], "Slice")
    if cut is None or len(cut.input) < 4:
        return None
    axes, start, end = (graph.scalar(cut.input[place]) for place in (3, 1, 2))
    steps = graph.scalar(cut.input[4]) if len(cut.input) > 4 else 1
    squeezed = attribute(node, "axes") or ([graph.scalar(node.input[1])] if len(node.input) > 1 else [])
    plain = axes == 0 and steps == 1 and list(squeezed) == [0] and start is not None and end == start + 1
    return (cut.input[0], int(start)) if plain and start is not None else None


def rows_of(graph: Graph, part: Heads, output: str, nodes: list[onnx.NodeProto]) -> str:
    """The tensor [batch, time, heads * channels] of queries, keys or values; packed ones are split once."""
    if part.part is None:
        return part.source
    known = f"split:{part.source}"
    if known not in graph.memo:
        shape = graph.shape(part.source)
        assert shape is not None and isinstance(shape[2], int), "packed projections have fixed widths"
        names = [graph.new_name(f"{part.source}/{word}") for word in ("query", "key", "value")]
        nodes.append(split_node(graph, part.source, names, [shape[2] // 3] * 3))
        for name in names:
            graph.dims.set(name, (*shape[:2], shape[2] // 3), TensorProto.FLOAT)
        graph.memo[known] = names
    return graph.memo[known][part.part]


def split_node(graph: Graph, source: str, names: list[str], sizes: list[int]) -> onnx.NodeProto:
    """Make a Split along the last axis, as the operator set writes it."""
    if graph.opset < 13:
        return helper.make_node("Split", [source], names, axis=-1, split=sizes)
    where = graph.add_constant(f"{names[0]}/sizes", np.array(sizes, np.int64))
    return helper.make_node("Split", [source, where], names, axis=-1)
