"""How much each node of an ONNX model computes and moves, and how nodes hang together: what a profile is held against.

Counted as in `hasten.model.flops`, node by node, at given sizes of the free dimensions. Nodes that compute shapes or
constants alone are left out: engines fold them, and they take no time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx

from hasten.model.flops import MATRIX, node_work
from hasten.model.onnx_file import OnnxModel
from hasten.model.shapes import Scope, constant_tensor, inferred

__all__ = ["NodeWork", "WorkGraph", "work_graph"]

# These choose from their first operand, or look at its shape alone: they read no more of it than they write.
_CHOOSING = frozenset({"Gather", "GatherElements", "GatherND", "Slice", "Shape", "Size"})


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeWork:
    """One node. `name` is its name in the file, empty where it has none; `flops` is None where a shape is unknown."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    flops: int | None

    @property
    def matrix(self) -> bool:
        """Whether it does matrix work."""
        return self.kind in MATRIX

    @property
    def label(self) -> str:
        """What to call it: its name, or what it computes where it has none."""
        return self.name or f"{self.kind} → {self.outputs[0] if self.outputs else '?'}"


class WorkGraph:
    """The nodes that compute with data, in the order of the file, by number."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        constants = {tensor.name for tensor in scope.graph.initializer}
        nodes: list[NodeWork] = []
        for node in scope.graph.node:
            if constant_tensor(node) is not None or all(name in constants for name in node.input if name):
                constants |= set(node.output)
            else:
                nodes.append(_work(node, scope))
        self.nodes = tuple(nodes)

    @cached_property
    def by_name(self) -> dict[str, int]:
        """Numbers of the nodes whose name is their own."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for number, node in enumerate(self.nodes):
            found[node.name].append(number)
        return {name: numbers[0] for name, numbers in found.items() if name and len(numbers) == 1}

    @cached_property
    def makers(self) -> dict[str, int]:
        """The node that makes each tensor."""
        return {name: number for number, node in enumerate(self.nodes) for name in node.outputs}

    def readers(self, number: int) -> list[int]:
        """The nodes that read what a node makes, in the order of the file."""
        return sorted({reader for name in self.nodes[number].outputs for reader in self._reading.get(name, ())})

    def flops(self, numbers: Iterable[int]) -> int | None:
        """FLOPs of several nodes together; None where one is unknown."""
        return _sum([self.nodes[number].flops for number in numbers])

    def bytes_moved(self, numbers: Iterable[int]) -> int | None:
        """Bytes that the nodes, taken as one, read and write: what passes between them stays inside."""
        chosen = set(numbers)
        made = {name for number in chosen for name in self.nodes[number].outputs}
        written = {name for name in made if name in self._results or self._reading.get(name, set()) - chosen}
        read: dict[str, int | None] = {}
        for number in sorted(chosen):
            node = self.nodes[number]
            for place, name in enumerate(node.inputs):
                if name and name not in made:
                    sparse = node.kind in _CHOOSING and place == 0
                    size = self._bytes(node.outputs[0]) if sparse else self._bytes(name)
                    known = read.get(name, 0)
                    read[name] = None if size is None or known is None else max(size, known)
        return _sum([*read.values(), *(self._bytes(name) for name in written)])

    @cached_property
    def _reading(self) -> dict[str, set[int]]:
        found: defaultdict[str, set[int]] = defaultdict(set)
        for number, node in enumerate(self.nodes):
            for name in node.inputs:
                found[name].add(number)
        return dict(found)

    @cached_property
    def _results(self) -> set[str]:
        return {value.name for value in self._scope.graph.output}

    def _bytes(self, name: str) -> int | None:
        return self._scope.bytes(name)


def work_graph(model: OnnxModel, dims: Mapping[str, int]) -> WorkGraph:
    """The nodes of the main graph with the free dimensions of the inputs set to `dims`, by place ("x[0]") or symbol."""
    return WorkGraph(inferred(model, dims)[0])


def _work(node: onnx.NodeProto, scope: Scope) -> NodeWork:
    return NodeWork(
        name=node.name,
        kind=node.op_type,
        inputs=tuple(node.input),
        outputs=tuple(name for name in node.output if name),
        flops=node_work(node, scope),
    )


def _sum(sizes: Iterable[int | None]) -> int | None:
    listed = list(sizes)
    known = [size for size in listed if size is not None]
    return sum(known) if len(known) == len(listed) else None
