"""What techniques on ONNX graphs share: loading with weights, names for every node, constants, subgraphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from hasten.model.base import Model
from hasten.model.onnx_file import OnnxModel, all_nodes

__all__ = [
    "QUANTIZED",
    "add_constant",
    "consumers",
    "drop_unused",
    "element_types",
    "graph_of",
    "is_quantized",
    "load",
    "name_nodes",
    "ordered",
    "prefixed",
    "replace_nodes",
    "scalar_of",
    "site_names",
    "subgraph_inputs",
    "weights_of",
]

QUANTIZED = (
    "QuantizeLinear",
    "QLinear",
    "DequantizeLinear",
    "ConvInteger",
    "MatMulInteger",
    "DynamicQuantize",
    "MatMulNBits",
)


def load(model: Model) -> onnx.ModelProto:
    """Read the model anew with its external weights in memory; the caller may change it."""
    return onnx.load_model(str(model.path))


def graph_of(model: Model) -> onnx.GraphProto:
    """The graph of an opened ONNX model, external weights left on disk; read only."""
    assert isinstance(model, OnnxModel), "the base lets only the declared formats through"
    return model.proto.graph


def is_quantized(model: Model) -> bool:
    """Whether any node computes with quantized numbers."""
    return any(name.startswith(QUANTIZED) for name in model.operators())


def site_names(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """A stable and unique name for each node of the graph itself, in order: its own, or its first output's."""
    counts = Counter(node.name for node in graph.node)
    return {
        node.name if node.name and counts[node.name] == 1 else f"{node.op_type}:{_first_output(node)}": node
        for node in graph.node
    }


def name_nodes(graph: onnx.GraphProto) -> None:
    """Write the names that `site_names` gives into the graph, for tools that exclude nodes by name."""
    for name, node in list(site_names(graph).items()):
        node.name = name


def weights_of(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Constant tensors of the graph itself by name: initializers that are no inputs, and values of Constant nodes."""
    given = {value.name for value in graph.input}
    found = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in given}
    for node in graph.node:
        if node.op_type == "Constant":
            value = next((item.t for item in node.attribute if item.name == "value"), None)
            if value is not None:
                found[node.output[0]] = value
    return found


def consumers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that read each tensor; nodes whose subgraphs read it are among them."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in dict.fromkeys([*node.input, *subgraph_inputs(node)]):
            if name:
                readers.setdefault(name, []).append(node)
    return readers


def subgraph_inputs(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the subgraphs of a node read, of the outer graph or their own."""
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in all_nodes(graph):
                yield from inner.input
            yield from (value.name for value in graph.output)


def prefixed(graph: onnx.GraphProto, prefix: str, keep: Iterable[str] = ()) -> onnx.GraphProto:
    """Return a copy in which every name but those in `keep` begins with `prefix`, in subgraphs too."""
    kept = {"", *keep}

    def named(name: str) -> str:
        return name if name in kept else prefix + name

    def rename(part: onnx.GraphProto) -> None:
        del part.quantization_annotation[:]
        for node in part.node:
            node.name = named(node.name)
            node.input[:] = map(named, node.input)
            node.output[:] = map(named, node.output)
            for attribute in node.attribute:
                for inner in ((attribute.g,) if attribute.HasField("g") else ()) + tuple(attribute.graphs):
                    rename(inner)
        sparse = (tensor for item in part.sparse_initializer for tensor in (item.values, item.indices))
        for item in (*part.initializer, *sparse, *part.input, *part.output, *part.value_info):
            item.name = named(item.name)

    copy = onnx.GraphProto()
    copy.CopyFrom(graph)
    rename(copy)
    return copy


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Put `nodes` in place of all nodes of the graph."""
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes whose outputs nobody reads, and then initializers that nobody reads."""
    wanted = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if any(name in wanted for name in node.output):
            kept.append(node)
            wanted.update([*node.input, *subgraph_inputs(node)])
    replace_nodes(graph, reversed(kept))
    initializers = [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.initializer[:]
    graph.initializer.extend(initializers)


def scalar_of(weights: dict[str, onnx.TensorProto], name: str) -> float | None:
    """The value of a constant with one element, or None."""
    tensor = weights.get(name)
    if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    array = numpy_helper.to_array(tensor)
    return float(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "fiu" else None


def add_constant(graph: onnx.GraphProto, name: str, array: np.ndarray) -> str:
    """Add an initializer and return its name, made unique."""
    taken = {tensor.name for tensor in graph.initializer} | {out for node in graph.node for out in node.output}
    unique, number = name, 0
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    graph.initializer.append(numpy_helper.from_array(array, unique))
    return unique


def element_types(graph: onnx.GraphProto) -> dict[str, int]:
    """Element types of the tensors whose value information the graph carries, and of its constants."""
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    return types


def ordered(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """`names` in the order of `order`."""
    wanted = set(names)
    return [name for name in order if name in wanted]


def _first_output(node: onnx.NodeProto) -> str:
    return next((name for name in node.output if name), "none")
