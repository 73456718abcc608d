"""Which precision an ONNX Runtime session really computes in: counted in the graph that it made of the model.

A quantized file is a wish. Whether its QDQ pairs became integer kernels shows only in the optimized graph, so a
throwaway session writes that graph down, and its arithmetic operators are counted, each weighed by the number of
weights that it multiplies with (1 where both factors are computed). That is the work of matrix products; of
convolutions it is the work at one place of the picture.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any

from hasten.errors import EngineRunError
from hasten.spec.target import Precision

__all__ = ["is_arithmetic", "precision_of_graph", "read_back"]

# Kernels that multiply integers. Their operands carry the model's weights.
_INTEGER = frozenset({
    "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QGemm",
    "QLinearConv", "QLinearMatMul", "QAttention", "QOrderedMatMul", "QOrderedAttention",
})  # fmt: skip
_FLOAT = frozenset({
    "Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "ConvTransposeWithDynamicPads", "DeformConv", "MatMul",
    "FusedMatMul", "TransposeMatMul", "Gemm", "FusedGemm", "GemmFastGelu", "GemmFloat8", "Einsum", "Attention",
    "MultiHeadAttention", "GroupQueryAttention", "PackedAttention", "LSTM", "GRU", "RNN", "AttnLSTM",
})  # fmt: skip
# Weights pass through these on their way to an operator.
_TRANSPARENT = frozenset({"DequantizeLinear", "Cast", "Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze"})
_GRAPH = 5  # AttributeProto.GRAPH
# By TensorProto's numbers. Doubles count as f32, the widest precision that hasten names.
_TYPES: dict[int, Precision] = {1: "f32", 10: "f16", 11: "f32", 16: "bf16"}


def read_back(model: Path, options: Any, provider: tuple[str, dict[str, str]]) -> Precision:
    """Load `model` once more with `options` as they are given, let the runtime write its graph down, and count.

    Weights go to a file beside it, so that a model of any size can be written. Raises `EngineRunError`.
    """
    import onnx
    import onnxruntime as ort

    with tempfile.TemporaryDirectory(prefix="hasten-graph-") as folder:
        path = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        # One level below the highest, which only lays out the same arithmetic for this processor's caches and cannot
        # be written portably.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.bin")
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        try:
            ort.InferenceSession(str(model), options, providers=[provider], enable_fallback=False)
            graph = onnx.load(str(path), load_external_data=False).graph
        except Exception as error:
            raise EngineRunError(
                f"onnxruntime cannot write down what it made of {model.name}: {' '.join(str(error).split())[:300]}",
                remedy="The precision in use is unknown.",
            ) from error
        return precision_of_graph(graph)


def is_arithmetic(kind: str) -> bool:
    """Whether an operator of this type does matrix work."""
    return kind in _INTEGER or kind in _FLOAT or kind == "MatMulNBits"


def precision_of_graph(graph: Any) -> Precision:
    """The precision of most weighed arithmetic in an optimized ONNX graph; f32 where there is none."""
    totals: Counter[Precision] = Counter()
    for scope in _scopes(graph, None):
        for node in scope.nodes:
            found = scope.precision(node)
            if found:
                totals[found] += scope.weight(node)
    return totals.most_common(1)[0][0] if totals else "f32"


class _Scope:
    """The values that the nodes of one graph see: its own, and those of the graphs around it."""

    def __init__(self, graph: Any, outer: _Scope | None) -> None:
        self.nodes: Iterable[Any] = graph.node
        self._types: dict[str, int] = dict(outer._types) if outer else {}
        self._sizes: dict[str, int] = dict(outer._sizes) if outer else {}
        for info in (*graph.input, *graph.output, *graph.value_info):
            self._types[info.name] = info.type.tensor_type.elem_type
        for tensor in graph.initializer:
            self._types[tensor.name] = tensor.data_type
            self._sizes[tensor.name] = prod(tensor.dims)
        for node in graph.node:
            if node.op_type in _TRANSPARENT and node.input and node.input[0] in self._sizes:
                self._sizes[node.output[0]] = self._sizes[node.input[0]]

    def precision(self, node: Any) -> Precision | None:
        if node.op_type in _INTEGER:
            return "int8"
        if node.op_type == "MatMulNBits":
            return "int4" if _attribute(node, "bits", 4) <= 4 else "int8"
        if node.op_type not in _FLOAT:
            return None
        for name in (*node.input, *node.output):
            kind = _TYPES.get(self._types.get(name, 0))
            if kind:
                return kind
        return "f32"

    def weight(self, node: Any) -> int:
        if node.op_type == "MatMulNBits":
            return max(1, _attribute(node, "K", 1) * _attribute(node, "N", 1))
        return max(1, *(self._sizes.get(name, 1) for name in node.input), 1)


def _scopes(graph: Any, outer: _Scope | None) -> Iterator[_Scope]:
    scope = _Scope(graph, outer)
    yield scope
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == _GRAPH:
                yield from _scopes(attribute.g, scope)
            for inner in attribute.graphs:
                yield from _scopes(inner, scope)


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(item.i) for item in node.attribute if item.name == name), default)
