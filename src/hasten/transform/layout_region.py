"""The rule of `layout` that moves a region of nodes to the layout before a transpose.

The region grows from the transpose's readers over neighbours that work in any layout. Each tensor that crosses its rim
saves a transpose, costs one or neither. Nodes are dropped from the rim while that makes the region better; what is left
changes its layout if that leaves fewer transposes. Every change lowers their number, so the end is reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from hasten.transform.graph import Graph
from hasten.transform.layout_agnostic import data_inputs, is_agnostic, moved
from hasten.transform.layout_rules import bypass, permutation
from hasten.transform.rewrite import Change

__all__ = ["flip_region"]

_LARGEST = 300


def flip_region(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
    """Move the region after `anchor`, a transpose, to the layout before it, if that saves transposes."""
    perm = permutation(graph, anchor)
    if perm is None or perm == sorted(perm):
        return None
    region = _Region(graph, perm)
    nodes = region.best(region.grown(graph.readers(anchor.output[0])))
    if not nodes or region.cost(nodes) >= 0:
        return None
    region.flip(nodes)
    return Change("moved", [])


Nodes = dict[str, onnx.NodeProto]


@dataclass(frozen=True, slots=True)
class _Region:
    graph: Graph
    perm: Sequence[int]

    def grown(self, seeds: Sequence[onnx.NodeProto]) -> Nodes:
        """All nodes that work in any layout and hang together with a seed."""
        graph, found, left = self.graph, Nodes(), list(seeds)
        while left and len(found) < _LARGEST:
            node = left.pop(0)
            if node.output[0] in found or not graph.allowed(node) or not is_agnostic(graph, node, len(self.perm)):
                continue
            found[node.output[0]] = node
            makers = (graph.producer(name) for name in data_inputs(node))
            left += [maker for maker in makers if maker is not None]
            left += [reader for name in node.output for reader in graph.readers(name)]
        return found

    def best(self, nodes: Nodes) -> Nodes:
        """Drop nodes, from the rim inwards, while the region gets better by it."""
        cost, better = self.cost(nodes), True
        while better and nodes:
            better = False
            for key in list(nodes):
                rest = {name: node for name, node in nodes.items() if name != key}
                less = self.cost(rest)
                if less < cost:
                    nodes, cost, better = rest, less, True
        return nodes

    def cost(self, nodes: Nodes) -> int:
        """How many more transposes there are if `nodes` move."""
        entries = sum(self._entry(name, nodes) for name in self._entries(nodes))
        return entries + sum(self._exit(name, nodes) for name in self._exits(nodes))

    def flip(self, nodes: Nodes) -> None:
        """Write `nodes` in the other layout, with transposes where the rim needs them."""
        graph, names = self.graph, dict[str, str]()
        exits = set(self._exits(nodes))
        for node in [node for node in graph.nodes() if node.output[0] in nodes]:
            made: list[onnx.NodeProto] = []
            for name in data_inputs(node):
                if name not in names and not graph.is_constant(name):
                    names[name] = self._before(name, made)
            outputs = [self._named(name, names) if name else "" for name in node.output]
            made.append(moved(graph, node, self.perm, names, outputs))
            after = [name for name in node.output if name in exits and self._needs(name, nodes)]
            made += [graph.node("Transpose", [names[name]], name, perm=list(self.perm)) for name in after]
            graph.put(node, made)
        for name in exits:
            self._skip_inverses(name, names[name])

    def _entries(self, nodes: Nodes) -> list[str]:
        """Tensors that come in from outside."""
        inner = {name for node in nodes.values() for name in node.output}
        read = dict.fromkeys(name for node in nodes.values() for name in data_inputs(node))
        return [name for name in read if name not in inner and not self.graph.is_constant(name)]

    def _exits(self, nodes: Nodes) -> list[str]:
        """Tensors that somebody outside reads."""
        made = [name for node in nodes.values() for name in node.output if name]
        return [name for name in made if self._outside(name, nodes)]

    def _outside(self, name: str, nodes: Nodes) -> bool:
        return name in self.graph.outputs or any(node.output[0] not in nodes for node in self.graph.readers(name))

    def _entry(self, name: str, nodes: Nodes) -> int:
        maker = self.graph.producer(name, "Transpose")
        perm = permutation(self.graph, maker)
        if maker is None or perm is None or not self.graph.allowed(maker):
            return 1
        kept = self._outside(name, nodes)
        return (0 if kept else -1) if perm == list(self.perm) else (1 if kept else 0)

    def _exit(self, name: str, nodes: Nodes) -> int:
        saved = sum(self._is_inverse(node) for node in self.graph.readers(name))
        return int(self._needs(name, nodes)) - saved

    def _needs(self, name: str, nodes: Nodes) -> bool:
        """Whether somebody outside needs a tensor in the layout that it had."""
        if name in self.graph.outputs:
            return True
        outside = [node for node in self.graph.readers(name) if node.output[0] not in nodes]
        return any(not self._is_inverse(node) for node in outside)

    def _is_inverse(self, node: onnx.NodeProto) -> bool:
        perm = permutation(self.graph, node)
        return perm is not None and self.graph.allowed(node) and perm == np.argsort(self.perm).tolist()

    def _before(self, name: str, made: list[onnx.NodeProto]) -> str:
        """The name of an incoming tensor in the layout before the transpose; a transpose for it joins `made`."""
        graph = self.graph
        maker = graph.producer(name, "Transpose")
        inner = permutation(graph, maker) if maker is not None and graph.allowed(maker) else None
        back = np.argsort(self.perm).tolist()
        if maker is not None and inner == list(self.perm):
            return maker.input[0]
        new = self._named(name, {})
        source = maker.input[0] if maker is not None and inner is not None else name
        both = [inner[axis] for axis in back] if inner is not None else back
        made.append(graph.node("Transpose", [source], new, perm=both))
        return new

    def _named(self, name: str, names: dict[str, str]) -> str:
        """A new name for a tensor in the other layout, and its shape."""
        graph = self.graph
        names[name] = graph.new_name(f"{name}/moved")
        shape = graph.shape(name)
        turned = None if shape is None else tuple(shape[axis] for axis in np.argsort(self.perm))
        graph.dims.set(names[name], turned, graph.type(name))
        return names[name]

    def _skip_inverses(self, name: str, new: str) -> None:
        """Transposes back to where the tensor now is have nothing left to do."""
        for node in self.graph.readers(name):
            if self._is_inverse(node):
                bypass(self.graph, node, new)
