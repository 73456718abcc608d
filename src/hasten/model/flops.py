"""How much an ONNX model computes: multiply-accumulates, other arithmetic, and the memory of its activations.

Matrix work (convolutions, matrix products, attention, recurrent layers) is counted in multiply-accumulates, each of
which is two floating-point operations. All other arithmetic is counted apart, one operation for each element and pass,
whatever the function costs: it is bound by memory, not by arithmetic. Moving data counts nothing. Operators whose
shapes stay unknown are named, so that a count is never silently too small.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import onnx
from onnx import numpy_helper

from hasten.model.onnx_file import OnnxModel
from hasten.model.shapes import Scope, Shape, constant_tensor, inferred
from hasten.spec.values import Value

__all__ = ["MATRIX", "Work", "count_work", "node_work"]


class Work(Value, frozen=True):
    """The arithmetic of one run at the sizes in `dims` (free input dimensions by place).

    `uncounted` says how many operators of which type had unknown shapes. `activation_bytes` is an estimate: the most
    that tensors between operators take at once in the order of the file, without reuse in place and without the
    engine's own workspace; None where a shape is unknown. `notes` are sentences for people.
    """

    macs: int
    elementwise: int
    uncounted: dict[str, int]
    dims: dict[str, int]
    activation_bytes: int | None
    notes: tuple[str, ...] = ()

    @property
    def flops(self) -> int:
        """Floating-point operations: two for each multiply-accumulate, and the rest."""
        return 2 * self.macs + self.elementwise


def count_work(model: OnnxModel, dims: Mapping[str, int]) -> Work:
    """Count with the free dimensions of the inputs set to `dims`, by place or symbol; others become 1."""
    scope, used = inferred(model, dims)
    tally = _Tally()
    tally.graph(scope)
    return Work(
        macs=tally.macs,
        elementwise=tally.elementwise,
        uncounted=dict(sorted(tally.uncounted.items())),
        dims=used,
        activation_bytes=_peak(scope),
        notes=tuple(dict.fromkeys(tally.notes)),
    )


def node_work(node: onnx.NodeProto, scope: Scope) -> int | None:
    """FLOPs of one node (bodies of If, Loop and Scan included); None where a shape is unknown."""
    tally = _Tally()
    tally.node(node, scope)
    return None if tally.uncounted else 2 * tally.macs + tally.elementwise


class _Node:
    """One node with the shapes around it."""

    def __init__(self, node: onnx.NodeProto, scope: Scope) -> None:
        self.proto = node
        self.scope = scope

    def inputs(self, *places: int) -> list[Shape] | None:
        """Shapes of the inputs at these places, or None if one is unknown."""
        names = [self.proto.input[place] if place < len(self.proto.input) else "" for place in places]
        return _all_known([self.scope.shape(name) for name in names])

    def output(self, place: int = 0) -> Shape | None:
        return self.scope.shape(self.proto.output[place])

    def attribute(self, name: str, default: Any = None) -> Any:
        found = next((item for item in self.proto.attribute if item.name == name), None)
        return default if found is None else onnx.helper.get_attribute_value(found)


def _all_known(shapes: list[Shape | None]) -> list[Shape] | None:
    known = [shape for shape in shapes if shape is not None]
    return known if len(known) == len(shapes) else None


class _Tally:
    """Sums over a graph and the subgraphs in it."""

    def __init__(self) -> None:
        self.macs = 0
        self.elementwise = 0
        self.uncounted: Counter[str] = Counter()
        self.notes: list[str] = []

    def graph(self, scope: Scope) -> None:
        for node in scope.graph.node:
            self.node(node, scope)

    def node(self, node: onnx.NodeProto, scope: Scope) -> None:
        bodies = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
        if bodies:
            self._with_bodies(node, bodies, scope)
        else:
            self._plain(_Node(node, scope))

    def _plain(self, node: _Node) -> None:
        kind = node.proto.op_type
        if kind in _MOVES or kind == "Constant":
            return
        count = MATRIX[kind](node) if kind in MATRIX else _elementwise(node)
        if count is None:
            self.uncounted[kind] += 1
        elif kind in MATRIX:
            self.macs += count
        else:
            self.elementwise += count

    def _with_bodies(self, node: onnx.NodeProto, bodies: list[onnx.GraphProto], scope: Scope) -> None:
        parts: list[_Tally] = []
        for body in bodies:
            part = _Tally()
            part.graph(scope.inner(body))
            parts.append(part)
        # Only one branch of an If runs: the costlier one is counted.
        most = max(parts, key=lambda part: 2 * part.macs + part.elementwise)
        times = _times(node, scope)
        if times is None:
            self.notes.append(f"The body of a {node.op_type} is counted once: how often it runs depends on the input.")
        self.macs += most.macs * (times or 1)
        self.elementwise += most.elementwise * (times or 1)
        self.uncounted += most.uncounted
        self.notes += most.notes


def _times(node: onnx.NodeProto, scope: Scope) -> int | None:
    """How often the body of an If, a Loop or a Scan runs, at most."""
    if node.op_type == "If":
        return 1
    if node.op_type == "Loop":
        constants = {tensor.name: tensor for tensor in scope.graph.initializer}
        constants |= {n.output[0]: t for n in scope.graph.node if (t := constant_tensor(n)) is not None}
        tensor = constants.get(node.input[0])
        # Without a trip count a loop runs until its condition ends it.
        return max(0, int(numpy_helper.to_array(tensor).item())) if tensor is not None else None
    shape = scope.shape(node.input[-1]) if node.input else None
    axes = next((list(a.ints) for a in node.attribute if a.name == "scan_input_axes"), [0])
    return shape[axes[-1]] if shape else None


def _convolution(data: int, weights: int) -> Callable[[_Node], int | None]:
    def count(node: _Node) -> int | None:
        shapes, out = node.inputs(data, weights), node.output()
        return None if shapes is None or out is None else math.prod(out) * math.prod(shapes[1][1:])

    return count


def _transposed_convolution(node: _Node) -> int | None:
    shapes = node.inputs(0, 1)
    return None if shapes is None else math.prod(shapes[0]) * math.prod(shapes[1][1:])


def _product(left: int) -> Callable[[_Node], int | None]:
    def count(node: _Node) -> int | None:
        shapes, out = node.inputs(left), node.output()
        if shapes is None or out is None:
            return None
        turned = node.attribute("transA", 0)
        depth = shapes[0][-2 if turned and len(shapes[0]) > 1 else -1] if shapes[0] else 1
        return math.prod(out) * depth

    return count


def _einsum(node: _Node) -> int | None:
    equation = node.attribute("equation", b"").decode().replace(" ", "")
    shapes = node.inputs(*range(len(node.proto.input)))
    terms = equation.split("->")[0].split(",")
    if shapes is None or "." in equation or [len(term) for term in terms] != [len(shape) for shape in shapes]:
        return None
    sizes = {letter: size for term, shape in zip(terms, shapes, strict=True) for letter, size in zip(term, shape)}  # noqa: B905
    return math.prod(sizes.values()) if len(terms) > 1 else 0


def _recurrent(gates: int) -> Callable[[_Node], int | None]:
    """Each step multiplies the input and the state with all gates' weights; W is [directions, gates·hidden, input]."""

    def count(node: _Node) -> int | None:
        shapes = node.inputs(0, 1)
        if shapes is None:
            return None
        steps = shapes[0][0] * shapes[0][1]
        directions, rows, features = shapes[1]
        return steps * directions * rows * (features + rows // gates)

    return count


def _attention(node: _Node) -> int | None:
    """Scores and weighted values: ONNX Attention and com.microsoft MultiHeadAttention, inputs [B,S,H] or [B,N,S,D]."""
    if node.proto.domain == "com.microsoft" and node.proto.op_type == "Attention":
        return _packed_attention(node)
    shapes = node.inputs(0, 1, 2)
    if shapes is None or any(len(shape) not in (3, 4) for shape in shapes):
        return None
    query, key, value = shapes
    heads = query[1] if len(query) == 4 else node.attribute("q_num_heads", node.attribute("num_heads", 1))
    depth = (query[-1] if len(query) == 4 else query[-1] // heads) + (
        value[-1] if len(value) == 4 else value[-1] // node.attribute("kv_num_heads", heads)
    )
    return query[0] * heads * query[-2] * key[-2] * depth


def _packed_attention(node: _Node) -> int | None:
    """com.microsoft Attention: the projections [H, 3H] and the attention itself."""
    shapes = node.inputs(0, 1)
    if shapes is None or len(shapes[0]) != 3:
        return None
    batch, length, features = shapes[0]
    width = shapes[1][-1] // 3
    return batch * length * features * shapes[1][-1] + 2 * batch * length * length * width


def _packed_weights(node: _Node) -> int | None:
    """com.microsoft MatMulNBits: the weights are packed, the attributes say how wide they are."""
    out, depth = node.output(), node.attribute("K")
    data = node.inputs(0)
    if depth is None or (out is None and data is None):
        return None
    return (math.prod(out) if out is not None else math.prod((data or [()])[0][:-1]) * node.attribute("N")) * depth


def _elementwise(node: _Node) -> int | None:
    """One operation for each element and pass of the largest tensor around; for pooling, for each element it reads."""
    kind, out = node.proto.op_type, node.output() if node.proto.output and node.proto.output[0] else None
    if out is None:
        return None
    if kind in ("MaxPool", "AveragePool", "LpPool", "QLinearAveragePool"):
        return math.prod(out) * math.prod(node.attribute("kernel_shape", [1]))
    first = node.inputs(0) if node.proto.input else None
    most = max(math.prod(out), math.prod(first[0]) if first else 0)
    return most * _PASSES.get(kind, 1)


# Matrix work by operator, in multiply-accumulates.
MATRIX: dict[str, Callable[[_Node], int | None]] = {
    "Conv": _convolution(0, 1), "ConvInteger": _convolution(0, 1), "FusedConv": _convolution(0, 1),
    "QLinearConv": _convolution(0, 3), "DeformConv": _convolution(0, 1), "ConvTranspose": _transposed_convolution,
    "MatMul": _product(0), "Gemm": _product(0), "MatMulInteger": _product(0), "FusedMatMul": _product(0),
    "QLinearMatMul": _product(0), "QGemm": _product(0), "FusedGemm": _product(0), "DynamicQuantizeMatMul": _product(0),
    "MatMulIntegerToFloat": _product(0), "MatMulNBits": _packed_weights, "Einsum": _einsum,
    "LSTM": _recurrent(4), "GRU": _recurrent(3), "RNN": _recurrent(1),
    "DynamicQuantizeLSTM": _recurrent(4), "Attention": _attention, "MultiHeadAttention": _attention,
}  # fmt: skip

# Passes over the data, where one operator makes several: softmax finds the maximum, subtracts, exponentiates, sums and
# divides; normalizations find mean and variance, then scale and shift.
_PASSES = {
    "Softmax": 5, "LogSoftmax": 5, "LayerNormalization": 7, "InstanceNormalization": 7, "GroupNormalization": 7,
    "MeanVarianceNormalization": 5, "RMSNormalization": 4, "SkipLayerNormalization": 8,
    "SimplifiedLayerNormalization": 4, "BatchNormalization": 2, "QuantizeLinear": 3, "DequantizeLinear": 2,
    "DynamicQuantizeLinear": 5, "LpNormalization": 3, "HardSwish": 3, "HardSigmoid": 3,
}  # fmt: skip

# These move, choose or describe data and compute nothing.
_MOVES = frozenset({
    "Reshape", "Transpose", "Identity", "Shape", "Size", "Cast", "CastLike", "Gather", "GatherElements", "GatherND",
    "ScatterElements", "ScatterND", "Scatter", "Slice", "Split", "Concat", "Squeeze", "Unsqueeze", "Flatten", "Expand",
    "Tile", "Pad", "ConstantOfShape", "DepthToSpace", "SpaceToDepth", "Dropout", "EyeLike", "NonZero", "Compress",
    "Where", "SplitToSequence", "SequenceConstruct", "SequenceAt", "SequenceInsert", "SequenceEmpty",
    "SequenceLength", "ConcatFromSequence", "ReverseSequence", "Optional", "OptionalGetElement", "OptionalHasElement",
    "CenterCropPad", "Trilu", "StringNormalizer", "StringConcat", "StringSplit", "LabelEncoder",
})  # fmt: skip


def _peak(scope: Scope) -> int | None:
    """The most that activations take at once, in the order of the file; None where one has no known size."""
    graph = scope.graph
    fixed = {tensor.name for tensor in graph.initializer}
    fixed |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    last = {name: place for place, node in enumerate(graph.node) for name in _reads(node)}
    last |= {value.name: len(graph.node) for value in graph.output}
    alive = {value.name: scope.bytes(value.name) for value in graph.input if value.name not in fixed}
    most = _sum(alive)
    for place, node in enumerate(graph.node):
        alive |= {name: scope.bytes(name) for name in node.output if name and name not in fixed}
        now = _sum(alive)
        if now is None or most is None:
            return None
        most = max(most, now)
        alive = {name: size for name, size in alive.items() if last.get(name, -1) > place}
    return most


def _reads(node: onnx.NodeProto) -> list[str]:
    """Names that a node reads, those that its subgraphs take from around them included."""
    inner = [
        name for a in node.attribute if a.type == onnx.AttributeProto.GRAPH for n in a.g.node for name in _reads(n)
    ]
    return [*node.input, *inner]


def _sum(sizes: Mapping[str, int | None]) -> int | None:
    known = [size for size in sizes.values() if size is not None]
    return sum(known) if len(known) == len(sizes) else None
