"""Merge constants that are equal bit for bit: shared weights that an exporter wrote once for each use.

Initializers, values of Constant nodes and those of subgraphs count alike. Less to load, and less memory where an engine
packs each weight for its kernels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import onnx
from onnx import TensorProto, numpy_helper

from hasten.model.base import Model
from hasten.model.onnx_file import OnnxModel, save_proto
from hasten.model.shapes import BITS
from hasten.transform.base import Options, Task, Transform
from hasten.transform.onnx_graph import load

__all__ = ["Deduplicate"]

# Element type, dimensions and content.
_Key = tuple[int, tuple[int, ...], bytes]


@final
class Deduplicate(Transform):
    """Equal constants of at least `least_bytes` become one."""

    name = "deduplicate"
    promise = "exact"

    # Merging single numbers saves nothing, and gives unrelated nodes a tensor in common.
    defaults = {"least_bytes": 64}

    def requires(self, model: Model, options: Options) -> str | None:
        """Two equal constants."""
        assert isinstance(model, OnnxModel), "the base lets only the declared formats through"
        proto = onnx.ModelProto()
        proto.CopyFrom(load(model) if model.files()[1:] else model.proto)
        if _merge(proto.graph, int(options["least_bytes"])).merged:
            return None
        return f"no two constants of {options['least_bytes']} bytes or more are equal."

    def apply(self, task: Task) -> None:
        """Let every reader of a copy read the first one."""
        proto = load(task.model)
        saved = _merge(proto.graph, int(task.options["least_bytes"]))
        task.notes.append(f"{saved.merged} constants were copies of others; {saved.bytes / 1e6:.3g} MB saved.")
        save_proto(proto, task.out)


@dataclass(slots=True)
class _Saved:
    merged: int = 0
    bytes: int = 0


def _merge(graph: onnx.GraphProto, least: int) -> _Saved:
    saved = _Saved()
    _merge_level(graph, {}, {}, least, saved)
    return saved


def _merge_level(
    graph: onnx.GraphProto, around: dict[_Key, str], renamed: dict[str, str], least: int, saved: _Saved
) -> None:
    """Merge in one graph, with the constants of the graphs around it, then in its subgraphs."""
    seen, names = dict(around), dict(renamed)
    fixed = {value.name for value in (*graph.input, *graph.output)}
    for name, tensor in _constants(graph):
        key = _key(tensor, least)
        if key is None or name in fixed:
            continue
        first = seen.setdefault(key, name)
        if first != name:
            names[name] = first
            saved.merged += 1
            saved.bytes += _bytes(tensor)
    gone = set(names) - set(renamed)
    _drop(graph, gone)
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
        for item in node.attribute:
            inner = [item.g] if item.type == onnx.AttributeProto.GRAPH else list(item.graphs)
            for body in inner:
                _merge_level(body, seen, names, least, saved)


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, TensorProto]]:
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            yield node.output[0], node.attribute[0].t


def _key(tensor: TensorProto, least: int) -> _Key | None:
    if tensor.data_type == TensorProto.STRING or _bytes(tensor) < least:
        return None
    content = tensor.raw_data or numpy_helper.to_array(tensor).tobytes()
    return tensor.data_type, tuple(tensor.dims), hashlib.sha256(content).digest()


def _bytes(tensor: TensorProto) -> int:
    size = 1
    for dim in tensor.dims:
        size *= dim
    return size * BITS.get(tensor.data_type, 0) // 8


def _drop(graph: onnx.GraphProto, names: set[str]) -> None:
    for place in range(len(graph.initializer) - 1, -1, -1):
        if graph.initializer[place].name in names:
            del graph.initializer[place]
    for place in range(len(graph.node) - 1, -1, -1):
        if graph.node[place].op_type == "Constant" and graph.node[place].output[0] in names:
            del graph.node[place]
    for place in range(len(graph.value_info) - 1, -1, -1):
        if graph.value_info[place].name in names:
            del graph.value_info[place]
