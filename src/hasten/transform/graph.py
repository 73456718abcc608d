"""An ONNX graph under change: who makes and who reads each tensor, what is constant, and putting nodes in place.

Only the main graph is changed. A tensor that a subgraph reads counts as read twice and is never taken away. Nodes are
known by their first output, because names of nodes may repeat; order is restored when the model is written.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import external_data_helper, helper, numpy_helper

from hasten.model.onnx_file import OnnxModel
from hasten.model.shapes import constant_tensor
from hasten.transform.dims import Dims, Shape
from hasten.transform.onnx_graph import site_names, subgraph_inputs

__all__ = ["CONTRIB", "Graph", "all_graphs", "attribute", "constants_first"]

CONTRIB = "com.microsoft"
# Constants that a pattern looks at are shapes, scalars and one-dimensional weights; larger ones are not kept in memory.
_CACHED = 2**20


class Graph:
    """The main graph of `proto`, which it changes. Weights may still lie in files beside `model`."""

    def __init__(self, proto: onnx.ModelProto, model: OnnxModel) -> None:
        self.proto = proto
        self.opset = max((item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")), default=0)
        self.dims = Dims(model)
        # Sites to leave alone, and tensors that rules made once and use again, by a name of the rule's choice.
        self.skip: frozenset[str] = frozenset()
        self.memo: dict[str, list[str]] = {}
        self._folder = str(model.path.parent)
        graph = proto.graph
        self.inputs = {value.name for value in graph.input}
        self.outputs = {value.name for value in graph.output}
        # By first output, which is unique, other than names of nodes.
        self._nodes: dict[str, onnx.NodeProto] = {}
        self._place: dict[str, int] = {}
        self._sites: dict[str, str] = {}
        self._producers: dict[str, onnx.NodeProto] = {}
        self._readers: dict[str, dict[str, int]] = {}
        self._values: dict[str, np.ndarray[Any, Any] | None] = {}
        self._tensors = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in self.inputs}
        self._names = {tensor.name for tensor in graph.initializer} | self.inputs
        for place, (site, node) in enumerate(site_names(graph).items()):
            self._enter(node, place, site)

    def nodes(self) -> list[onnx.NodeProto]:
        """All nodes as they stand, in an order in which each comes after what it reads."""
        return [self._nodes[key] for key in self._sorted()]

    def has(self, node: onnx.NodeProto) -> bool:
        """Whether a node is still in the graph."""
        return self._nodes.get(_key(node)) is node

    def site(self, node: onnx.NodeProto) -> str:
        """The name of the place where `node` stands: that of the node that stood there in the file."""
        return self._sites[_key(node)]

    def allowed(self, node: onnx.NodeProto) -> bool:
        """Whether the place where `node` stands may be touched."""
        return self._sites[_key(node)] not in self.skip

    def in_order(self, nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """`nodes` by their places in the file."""
        return sorted(nodes, key=lambda node: (self._place[_key(node)], _key(node)))

    def producer(self, name: str, *operators: str) -> onnx.NodeProto | None:
        """The node that makes `name`, if it is one of these standard operators (or any, if none are named)."""
        node = self._producers.get(name)
        if node is None or (operators and (node.op_type not in operators or node.domain not in ("", "ai.onnx"))):
            return None
        return node

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that read `name`; a node with a subgraph that reads it is one of them."""
        return [self._nodes[key] for key in self._readers.get(name, {})]

    def private(self, name: str) -> bool:
        """Whether exactly one input of one node reads `name`, and nobody outside sees it."""
        keys = self._readers.get(name, {})
        return name not in self.outputs and len(keys) == 1 and next(iter(keys.values())) == 1

    def is_constant(self, name: str) -> bool:
        """Whether `name` is a weight that no caller can override."""
        return name in self._tensors

    def tensor(self, name: str) -> onnx.TensorProto | None:
        """The constant called `name` as it is stored."""
        return self._tensors.get(name)

    def constant(self, name: str) -> np.ndarray[Any, Any] | None:
        """The value of a constant; None where `name` is not one or is text."""
        if name in self._values:
            return self._values[name]
        tensor = self._tensors.get(name)
        if tensor is None or tensor.data_type == onnx.TensorProto.STRING:
            return None
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            copied = onnx.TensorProto()
            copied.CopyFrom(tensor)
            external_data_helper.load_external_data_for_tensor(copied, self._folder)
            tensor = copied
        value = numpy_helper.to_array(tensor)
        if value.nbytes <= _CACHED:
            self._values[name] = value
        return value

    def scalar(self, name: str) -> float | None:
        """The value of a numeric constant with one element."""
        tensor = self._tensors.get(name)
        if tensor is None or int(np.prod(tensor.dims)) != 1:
            return None
        value = self.constant(name)
        return float(value.reshape(-1)[0]) if value is not None and value.dtype.kind in "fiu" else None

    def shape(self, name: str) -> Shape | None:
        """The shape of a tensor; a free dimension is a pair that equals only its own like."""
        tensor = self._tensors.get(name)
        return tuple(tensor.dims) if tensor is not None else self.dims.shape(name)

    def rank(self, name: str) -> int | None:
        """The number of dimensions of a tensor."""
        shape = self.shape(name)
        return None if shape is None else len(shape)

    def type(self, name: str) -> int:
        """The ONNX element type; UNDEFINED where unknown."""
        tensor = self._tensors.get(name)
        return tensor.data_type if tensor is not None else self.dims.type(name)

    def add_constant(self, hint: str, value: np.ndarray[Any, Any]) -> str:
        """Add a weight and return its name."""
        name = self.new_name(hint)
        tensor = self.proto.graph.initializer.add()
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name))
        self._tensors[name] = tensor
        return name

    def new_name(self, hint: str) -> str:
        """A name that no tensor has yet."""
        name, number = hint, 0
        while name in self._names:
            number += 1
            name = f"{hint}_{number}"
        self._names.add(name)
        return name

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        output: str,
        *,
        domain: str = "",
        attributes: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> onnx.NodeProto:
        """Make a node with one output. It joins the graph when a rule returns it."""
        return helper.make_node(operator, list(inputs), [output], domain=domain or None, **(attributes or {}), **more)

    def put(self, anchor: onnx.NodeProto, nodes: Sequence[onnx.NodeProto]) -> None:
        """Let `nodes`, in the order in which they depend on each other, take the place of `anchor`.

        The last node takes over the anchor's name. Where it gives another tensor than the anchor did, readers must
        have been moved before.
        """
        key = _key(anchor)
        place, site, name, read = self._place[key], self._sites[key], anchor.name, _reads(anchor)
        self.remove(anchor)
        for node in nodes:
            last = node is nodes[-1]
            node.name = name if last else f"{site}/{_key(node)}"
            self._enter(node, place, site)
            if node.domain == CONTRIB:
                self._import_contrib()
        self._sweep(read)

    def remove(self, node: onnx.NodeProto) -> None:
        """Take a node out; what it made must be made by another or be read by nobody."""
        key = _key(node)
        for name in _reads(node):
            left = self._readers[name]
            left[key] -= 1
            if not left[key]:
                del left[key]
        for name in node.output:
            if self._producers.get(name) is node:
                del self._producers[name]
        del self._nodes[key], self._place[key], self._sites[key]

    def drop(self, node: onnx.NodeProto) -> None:
        """Take out a node whose results nobody reads any more, and what only it read."""
        read = _reads(node)
        self.remove(node)
        self._sweep(read)

    def redirect(self, old: str, new: str) -> None:
        """Let every node of the main graph that reads `old` read `new`. Subgraphs and outputs keep `old`."""
        for node in self.readers(old):
            self.set_inputs(node, [new if name == old else name for name in node.input])

    def set_inputs(self, node: onnx.NodeProto, names: Sequence[str]) -> None:
        """Let `node` read other tensors."""
        key = _key(node)
        place, site = self._place[key], self._sites[key]
        self.remove(node)
        del node.input[:]
        node.input.extend(names)
        self._enter(node, place, site)

    def read_in_subgraph(self, name: str) -> bool:
        """Whether a subgraph reads `name`."""
        return any(name in subgraph_inputs(node) for node in self.readers(name))

    def finish(self) -> onnx.ModelProto:
        """Drop what nobody reads any more, write the nodes back in order, and return the model."""
        wanted, kept = set(self.outputs), list[onnx.NodeProto]()
        for node in reversed(self.nodes()):
            if any(name in wanted for name in node.output):
                kept.append(node)
                wanted.update(_reads(node))
        graph = self.proto.graph
        copies = [_copy(node) for node in reversed(kept)]
        del graph.node[:]
        graph.node.extend(copies)
        made = {name for node in copies for name in node.output}
        _keep(graph.initializer, lambda tensor: tensor.name in wanted or tensor.name in self.inputs)
        foreign = {name for node in copies if node.domain == CONTRIB for name in node.output if name}
        _keep(graph.value_info, lambda value: value.name in made - foreign)
        known = [name for name in sorted(foreign - self.outputs) if self.type(name)]
        graph.value_info.extend(map(self._value_info, known))
        return self.proto

    def _value_info(self, name: str) -> onnx.ValueInfoProto:
        """What shape inference cannot find out about the results of foreign operators."""
        shape = self.shape(name)
        sizes = None if shape is None else [dim if isinstance(dim, int) else self.dims.symbol(dim) for dim in shape]
        return helper.make_tensor_value_info(name, self.type(name), sizes)

    def _sweep(self, names: Iterable[str]) -> None:
        """Take out what makes these tensors, if nobody reads anything of it any more, and so on upwards."""
        left = list(names)
        while left:
            node = self._producers.get(left.pop())
            if node is None or any(name in self.outputs or self._readers.get(name) for name in node.output):
                continue
            read = _reads(node)
            self.remove(node)
            left += read

    def _enter(self, node: onnx.NodeProto, place: int, site: str) -> None:
        key = _key(node)
        self._nodes[key], self._place[key], self._sites[key] = node, place, site
        for name in _reads(node):
            counts = self._readers.setdefault(name, {})
            counts[key] = counts.get(key, 0) + 1
        for name in node.output:
            if name:
                self._producers[name] = node
                self._names.add(name)
        value = constant_tensor(node)
        if value is not None:
            self._tensors[node.output[0]] = value

    def _sorted(self) -> list[str]:
        """Kahn's algorithm; of the nodes that could come next, the one that came first in the file does."""
        left = {key: len({self._maker(name) for name in _reads(node)} - {""}) for key, node in self._nodes.items()}
        after: dict[str, list[str]] = {}
        for key, node in self._nodes.items():
            for maker in {self._maker(name) for name in _reads(node)} - {""}:
                after.setdefault(maker, []).append(key)
        ready = [(self._place[key], key) for key, count in left.items() if not count]
        heapq.heapify(ready)
        order: list[str] = []
        while ready:
            _, key = heapq.heappop(ready)
            order.append(key)
            for reader in after.get(key, ()):
                left[reader] -= 1
                if not left[reader]:
                    heapq.heappush(ready, (self._place[reader], reader))
        assert len(order) == len(self._nodes), "a rewrite made a cycle"
        return order

    def _maker(self, name: str) -> str:
        node = self._producers.get(name)
        return _key(node) if node is not None else ""

    def _import_contrib(self) -> None:
        if all(item.domain != CONTRIB for item in self.proto.opset_import):
            self.proto.opset_import.add(domain=CONTRIB, version=1)


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those in its If, Loop and Scan nodes, each after the one around it."""
    yield graph
    for node in graph.node:
        for item in node.attribute:
            if item.type == onnx.AttributeProto.GRAPH:
                yield from all_graphs(item.g)
            elif item.type == onnx.AttributeProto.GRAPHS:
                for inner in item.graphs:
                    yield from all_graphs(inner)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute, or `default`."""
    found = next((item for item in node.attribute if item.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def constants_first(graph: Graph, node: onnx.NodeProto) -> tuple[str, str] | None:
    """Of a node with two inputs, one of them constant: the constant, then the other."""
    if len(node.input) != 2:
        return None
    left, right = node.input
    if graph.is_constant(left) == graph.is_constant(right):
        return None
    return (left, right) if graph.is_constant(left) else (right, left)


def _key(node: onnx.NodeProto) -> str:
    return next((name for name in node.output if name), "")


def _reads(node: onnx.NodeProto) -> list[str]:
    names = [name for name in node.input if name]
    if any(item.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for item in node.attribute):
        # Twice, so that nobody takes the tensor for private.
        names += [name for name in dict.fromkeys(subgraph_inputs(node)) if name for _ in range(2)]
    return names


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    return copied


def _keep(items: Any, wanted: Callable[[Any], bool]) -> None:
    for place in range(len(items) - 1, -1, -1):
        if not wanted(items[place]):
            del items[place]
