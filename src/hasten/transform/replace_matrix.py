"""Rules of `replace_operators` for matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from hasten.transform.graph import Graph, attribute
from hasten.transform.rewrite import Change

__all__ = ["einsum", "one_hot"]


def one_hot(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
    """The product of one-hot vectors with a table looks up its rows.

    The vectors are made by comparing numbers with 0, 1, 2, ...; a number outside of these gives a row of zeros, which
    the table gets at both ends.
    """
    if anchor.op_type != "MatMul" or anchor.domain or graph.opset < 13:
        return None
    table = graph.constant(anchor.input[1])
    cast = graph.producer(anchor.input[0], "Cast")
    equal = graph.producer(cast.input[0], "Equal") if cast is not None else None
    if table is None or table.ndim != 2 or cast is None or equal is None:
        return None
    found = _compared(graph, equal, len(table))
    if found is None or attribute(cast, "to") != graph.type(anchor.input[1]):
        return None
    numbers, start = found
    return Change("one_hot", _look_up(graph, anchor, table, numbers, start))


def _compared(graph: Graph, equal: onnx.NodeProto, count: int) -> tuple[str, int] | None:
    """The numbers [..., 1] that are compared with `count` consecutive ones, and the first of these."""
    for name, other in (tuple(equal.input), tuple(equal.input)[::-1]):
        steps = graph.constant(other)
        expanded = graph.producer(name, "Expand")
        source = expanded.input[0] if expanded is not None else name
        shape, whole = graph.shape(source), graph.shape(equal.output[0])
        if steps is None or steps.size != count or steps.dtype not in (np.int32, np.int64) or steps.shape[-1] != count:
            continue
        if shape is None or whole is None or shape[-1:] != (1,) or (*shape[:-1], count) != whole:
            continue
        flat = steps.reshape(-1)
        if np.array_equal(flat, flat[0] + np.arange(count)):
            return source, int(flat[0])
    return None


def _look_up(graph: Graph, anchor: onnx.NodeProto, table: np.ndarray, numbers: str, start: int) -> list[onnx.NodeProto]:
    output = anchor.output[0]
    kind = np.int32 if graph.type(numbers) == TensorProto.INT32 else np.int64
    zeros = np.zeros((1, table.shape[1]), table.dtype)
    rows = graph.add_constant(f"{output}/rows", np.concatenate([zeros, table, zeros]))
    last = graph.add_constant(f"{output}/last", np.array([-1], np.int64))
    low, high, shift = (
        graph.add_constant(f"{output}/{word}", np.array(value, kind))
        for word, value in (("low", start - 1), ("high", start + len(table)), ("shift", 1 - start))
    )
    flat, clipped, places = (graph.new_name(f"{output}/{word}") for word in ("numbers", "clipped", "places"))
    return [
        graph.node("Squeeze", [numbers, last], flat),
        graph.node("Clip", [flat, low, high], clipped),
        graph.node("Add", [clipped, shift], places),
        graph.node("Gather", [rows, places], output, axis=0),
    ]


def einsum(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
    """An Einsum that is a batched matrix product, with transposes around it where letters are in another order."""
    if anchor.op_type != "Einsum" or anchor.domain or len(anchor.input) != 2:
        return None
    parts = _equation(attribute(anchor, "equation", b"").decode())
    if parts is None:
        return None
    left, right, result = parts
    batch = [letter for letter in result if letter in left and letter in right]
    rows = [letter for letter in result if letter in left and letter not in right]
    columns = [letter for letter in result if letter in right and letter not in left]
    summed = [letter for letter in left if letter in right and letter not in result]
    if len(rows) != 1 or len(columns) != 1 or len(summed) != 1:
        return None
    if {*left, *right} != {*result, *summed} or len(left) != len(batch) + 2 or len(right) != len(batch) + 2:
        return None
    nodes: list[onnx.NodeProto] = []
    a = _ordered(graph, anchor, anchor.input[0], left, [*batch, *rows, *summed], nodes)
    b = _ordered(graph, anchor, anchor.input[1], right, [*batch, *summed, *columns], nodes)
    made = [*batch, *rows, *columns]
    output = anchor.output[0]
    if made == list(result):
        return Change("einsum", [*nodes, graph.node("MatMul", [a, b], output)])
    product = graph.new_name(f"{output}/product")
    nodes.append(graph.node("MatMul", [a, b], product))
    nodes.append(graph.node("Transpose", [product], output, perm=[made.index(letter) for letter in result]))
    return Change("einsum", nodes)


def _equation(text: str) -> tuple[str, str, str] | None:
    """The letters of both inputs and the result; None where one is repeated, implied or an ellipsis."""
    inputs, arrow, result = text.replace(" ", "").partition("->")
    parts = [*inputs.split(","), result]
    plain = all(part.isalpha() and len(set(part)) == len(part) for part in parts)
    return (parts[0], parts[1], parts[2]) if arrow and len(parts) == 3 and plain else None


def _ordered(
    graph: Graph, anchor: onnx.NodeProto, name: str, have: str, want: Sequence[str], nodes: list[onnx.NodeProto]
) -> str:
    if list(have) == list(want):
        return name
    turned = graph.new_name(f"{anchor.output[0]}/turned")
    nodes.append(helper.make_node("Transpose", [name], [turned], perm=[have.index(letter) for letter in want]))
    return turned
