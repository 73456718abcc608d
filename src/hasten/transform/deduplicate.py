"""Merge constants that are equal bit for bit: shared weights that an exporter wrote once for each use.

Initializers, values of Constant nodes and those of subgraphs count alike. Less to load, and less memory where an engine
packs each weight for its kernels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import onnx
from onnx import TensorProto

from hasten.model.base import Model
from hasten.model.lint_weights import raw_bytes, weight_bytes
from hasten.model.onnx_file import OnnxModel, save_proto
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
        proto.CopyFrom(model.proto)
        if _merge(proto.graph, model.path.parent, int(options["least_bytes"])).merged:
            return None
        return f"no two constants of {options['least_bytes']} bytes or more are equal."

    def apply(self, task: Task) -> None:
        """Let every reader of a copy read the first one."""
        proto = load(task.model)
        saved = _merge(proto.graph, task.model.path.parent, int(task.options["least_bytes"]))
        task.notes.append(f"{saved.merged} constants were copies of others; {saved.bytes / 1e6:.3g} MB saved.")
        save_proto(proto, task.out)


@dataclass(slots=True)
class _Saved:
    merged: int = 0
    bytes: int = 0


def _merge(graph: onnx.GraphProto, folder: Path, least: int) -> _Saved:
    merging = _Merging(folder, least)
    merging.level(graph, {}, {})
    return merging.saved


@dataclass(frozen=True, slots=True)
class _Merging:
    folder: Path
    least: int
    saved: _Saved = field(default_factory=_Saved)

    def level(self, graph: onnx.GraphProto, around: dict[_Key, str], renamed: dict[str, str]) -> None:
        """Merge in one graph, with the constants of the graphs around it, then in its subgraphs."""
        seen, names = dict(around), dict(renamed)
        fixed = {value.name for value in (*graph.input, *graph.output)}
        for name, tensor in _constants(graph):
            if name in fixed or tensor.data_type == TensorProto.STRING or weight_bytes(tensor) < self.least:
                continue
            first = seen.setdefault(self._key(tensor), name)
            if first != name:
                names[name] = first
                self.saved.merged += 1
                self.saved.bytes += weight_bytes(tensor)
        _drop(graph, set(names) - set(renamed))
        for node in graph.node:
            for place, name in enumerate(node.input):
                node.input[place] = names.get(name, name)
            for item in node.attribute:
                for body in [item.g] if item.type == onnx.AttributeProto.GRAPH else item.graphs:
                    self.level(body, seen, names)

    def _key(self, tensor: TensorProto) -> _Key:
        content = hashlib.sha256(raw_bytes(tensor, self.folder).data)
        return tensor.data_type, tuple(tensor.dims), content.digest()


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, TensorProto]]:
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            yield node.output[0], node.attribute[0].t


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
