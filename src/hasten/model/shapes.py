"""Shapes of all tensors of an ONNX graph at given sizes of its free dimensions, without touching large weights.

Shape inference needs what weights look like, not what they hold, so it gets a copy whose large tensors are empty. A
model of many gigabytes is so inferred in the time of its node count. Small tensors keep their values, because operators
such as Reshape read shapes from them; and what a graph computes from shapes alone is computed here, because ONNX's
own inference gives such chains up at many operators.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, inliner, numpy_helper

from hasten.model.onnx_file import OnnxModel

__all__ = ["BITS", "Scope", "Shape", "constant_tensor", "inferred"]

Shape = tuple[int, ...]

# Bits of one element in memory. Strings have no fixed size and are left out.
BITS: dict[int, int] = {
    TensorProto.BOOL: 8, TensorProto.UINT8: 8, TensorProto.INT8: 8, TensorProto.UINT16: 16, TensorProto.INT16: 16,
    TensorProto.UINT32: 32, TensorProto.INT32: 32, TensorProto.UINT64: 64, TensorProto.INT64: 64,
    TensorProto.FLOAT16: 16, TensorProto.BFLOAT16: 16, TensorProto.FLOAT: 32, TensorProto.DOUBLE: 64,
    TensorProto.COMPLEX64: 64, TensorProto.COMPLEX128: 128, TensorProto.UINT4: 4, TensorProto.INT4: 4,
    TensorProto.FLOAT8E4M3FN: 8, TensorProto.FLOAT8E4M3FNUZ: 8, TensorProto.FLOAT8E5M2: 8,
    TensorProto.FLOAT8E5M2FNUZ: 8,
}  # fmt: skip

# A tensor of more elements than this is no shape that an operator would read.
_SMALL = 1024
_MOST_ROUNDS = 12
# Operators that exporters compute shapes with.
_FOLDED = frozenset({
    "Add", "Sub", "Mul", "Div", "Mod", "Neg", "Cast", "Concat", "Gather", "Slice", "Squeeze", "Unsqueeze", "Reshape",
    "Range", "ConstantOfShape", "Where", "Equal", "Less", "Greater", "Not", "And", "Or", "Min", "Max", "ReduceProd",
    "ReduceSum", "ReduceMin", "ReduceMax", "Expand", "Identity", "Floor", "Ceil", "Flatten", "Transpose", "Split",
})  # fmt: skip


class Scope:
    """Shapes and element types of the tensors that one graph sees: its own, then those of the graphs around it."""

    def __init__(self, graph: onnx.GraphProto, parent: Scope | None = None) -> None:
        self.graph = graph
        self._parent = parent
        self._shapes: dict[str, Shape] = {}
        self._types: dict[str, int] = {}
        self._read()

    def shape(self, name: str) -> Shape | None:
        """The shape of a tensor, where all its dimensions are known."""
        if name in self._types:
            return self._shapes.get(name)
        return self._parent.shape(name) if self._parent else None

    def type(self, name: str) -> int:
        """The ONNX element type of a tensor; UNDEFINED where inference found none."""
        if name in self._types:
            return self._types[name]
        return self._parent.type(name) if self._parent else TensorProto.UNDEFINED

    def bytes(self, name: str) -> int | None:
        """Memory of a tensor; None where its shape or type is unknown."""
        shape, bits = self.shape(name), BITS.get(self.type(name))
        return None if shape is None or bits is None else (math.prod(shape) * bits + 7) // 8

    def inner(self, graph: onnx.GraphProto) -> Scope:
        """The scope of a subgraph of this graph."""
        return Scope(graph, self)

    def _read(self) -> None:
        for value in (*self.graph.value_info, *self.graph.input, *self.graph.output):
            kind = value.type.tensor_type
            self._types[value.name] = kind.elem_type
            if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
                self._shapes[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
        for tensor in self.graph.initializer:
            self._note(tensor.name, tensor)
        for node in self.graph.node:
            tensor = constant_tensor(node)
            if tensor is not None:
                self._note(node.output[0], tensor)
            for name in node.output:
                # What inference knew nothing of still belongs to this graph, not to one around it.
                self._types.setdefault(name, TensorProto.UNDEFINED)

    def _note(self, name: str, tensor: onnx.TensorProto) -> None:
        self._types[name], self._shapes[name] = tensor.data_type, tuple(tensor.dims)


def inferred(model: OnnxModel, dims: Mapping[str, int]) -> tuple[Scope, dict[str, int]]:
    """Infer all shapes with the free input dimensions set to `dims`, by place ("x[0]") or symbol; others become 1.

    Returns the scope of the main graph, model-local functions written out, and the sizes that were used, by place.
    """
    lean = _lean(model)
    if lean.functions:
        lean = inliner.inline_local_functions(lean)
    used = _fix_inputs(lean.graph, dims)
    # Stored shapes may be those of another size. Foreign operators have no inference; what is stored is all.
    foreign = [node for node in lean.graph.node if node.domain not in ("", "ai.onnx", "ai.onnx.ml")]
    made = {name for node in foreign for name in node.output}
    kept = [value for value in lean.graph.value_info if value.name in made]
    del lean.graph.value_info[:]
    lean.graph.value_info.extend(kept)
    for value in lean.graph.output:
        value.type.tensor_type.ClearField("shape")
    return _settled(lean), used


def constant_tensor(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The value of a `Constant` node as a tensor; None for other nodes and for text."""
    if node.op_type != "Constant" or not node.attribute:
        return None
    item = node.attribute[0]
    if item.name == "value":
        return item.t
    if item.name in ("value_int", "value_ints"):
        values, shape = (list(item.ints), [len(item.ints)]) if item.name == "value_ints" else ([item.i], [])
        return onnx.helper.make_tensor(node.output[0], TensorProto.INT64, shape, values)
    if item.name in ("value_float", "value_floats"):
        values, shape = (list(item.floats), [len(item.floats)]) if item.name == "value_floats" else ([item.f], [])
        return onnx.helper.make_tensor(node.output[0], TensorProto.FLOAT, shape, values)
    return None


def _settled(lean: onnx.ModelProto) -> Scope:
    """Infer, compute what follows from known shapes alone, and again, until nothing new follows."""
    scope = Scope(_infer(lean).graph)
    opset = max((item.version for item in lean.opset_import if item.domain in ("", "ai.onnx")), default=1)
    for _ in range(_MOST_ROUNDS):
        if not _fold_shapes(lean.graph, scope, opset):
            break
        scope = Scope(_infer(lean).graph)
    return scope


def _fold_shapes(graph: onnx.GraphProto, scope: Scope, opset: int) -> bool:
    """Replace nodes whose inputs are small known values by their result; say whether there were any."""
    tensors = [(tensor.name, tensor) for tensor in graph.initializer]
    tensors += [(node.output[0], t) for node in graph.node if (t := constant_tensor(node)) is not None]
    known = {name: numpy_helper.to_array(t) for name, t in tensors if _has_values(t)}
    folded: list[int] = []
    for place, node in enumerate(graph.node):
        value = _value(node, known, scope, opset)
        if value is not None:
            known[node.output[0]] = value
            graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
            folded.append(place)
    for place in reversed(folded):
        del graph.node[place]
    return bool(folded)


def _value(node: onnx.NodeProto, known: Mapping[str, Any], scope: Scope, opset: int) -> np.ndarray[Any, Any] | None:
    if node.op_type == "Shape" and not node.attribute:
        shape = scope.shape(node.input[0])
        return None if shape is None else np.array(shape, np.int64)
    if node.op_type not in _FOLDED or len(node.output) != 1 or any(name and name not in known for name in node.input):
        return None
    from onnx.reference import ReferenceEvaluator

    graph = onnx.helper.make_graph([node], "one", [], [onnx.ValueInfoProto(name=node.output[0])])
    graph.initializer.extend(numpy_helper.from_array(known[name], name) for name in {*node.input} if name)
    try:
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        [value] = ReferenceEvaluator(model).run(None, {})
    except Exception:
        # A shape that the reference cannot compute stays unknown, and what depends on it is reported as uncounted.
        return None
    value = np.asarray(value)
    return value if value.size <= _SMALL else None


def _has_values(tensor: onnx.TensorProto) -> bool:
    plain = tensor.data_type in BITS and tensor.data_location != TensorProto.EXTERNAL
    return plain and math.prod(tensor.dims) <= _SMALL


def _infer(lean: onnx.ModelProto) -> onnx.ModelProto:
    for values_too in (True, False):
        try:
            return onnx.shape_inference.infer_shapes(lean, data_prop=values_too)
        except Exception:
            # Inference refuses some valid models, more of them when it follows values. Its libraries throw several
            # kinds of errors. What stays unknown is reported as uncounted, so nothing is hidden here.
            continue
    return lean


def _lean(model: OnnxModel) -> onnx.ModelProto:
    """A copy whose large tensors have no values."""
    source = model.proto
    lean = onnx.ModelProto(ir_version=source.ir_version)
    lean.opset_import.extend(source.opset_import)
    lean.functions.extend(source.functions)
    _copy_graph(source.graph, lean.graph, model.path.parent)
    return lean


def _copy_graph(source: onnx.GraphProto, target: onnx.GraphProto, folder: Path) -> None:
    target.name = source.name or "graph"
    for part in ("input", "output", "value_info"):
        getattr(target, part).extend(getattr(source, part))
    for item in source.sparse_initializer:
        target.initializer.add(name=item.values.name, data_type=item.values.data_type, dims=item.dims)
    for tensor in source.initializer:
        _copy_tensor(tensor, target.initializer.add(), folder)
    for node in source.node:
        copied = target.node.add(name=node.name, op_type=node.op_type, domain=node.domain)
        copied.input.extend(node.input)
        copied.output.extend(node.output)
        for attribute in node.attribute:
            _copy_attribute(attribute, copied.attribute.add(), folder)


def _copy_attribute(source: onnx.AttributeProto, target: onnx.AttributeProto, folder: Path) -> None:
    if source.type == onnx.AttributeProto.TENSOR:
        target.name, target.type = source.name, source.type
        _copy_tensor(source.t, target.t, folder)
    elif source.type == onnx.AttributeProto.GRAPH:
        target.name, target.type = source.name, source.type
        _copy_graph(source.g, target.g, folder)
    else:
        target.CopyFrom(source)


def _copy_tensor(source: onnx.TensorProto, target: onnx.TensorProto, folder: Path) -> None:
    if math.prod(source.dims) > _SMALL:
        target.name, target.data_type = source.name, source.data_type
        target.dims.extend(source.dims)
        return
    target.CopyFrom(source)
    if source.data_location == TensorProto.EXTERNAL:
        external_data_helper.load_external_data_for_tensor(target, str(folder))
        target.data_location = TensorProto.DEFAULT
        target.ClearField("external_data")


def _fix_inputs(graph: onnx.GraphProto, dims: Mapping[str, int]) -> dict[str, int]:
    initial = {item.name for item in graph.initializer}
    used: dict[str, int] = {}
    symbols: dict[str, int] = {}
    for value in graph.input:
        if value.name in initial:
            continue
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not (dim.HasField("dim_value") and dim.dim_value > 0):
                place = f"{value.name}[{axis}]"
                size = dims.get(place, dims.get(dim.dim_param, 1))
                used[place] = size
                if dim.dim_param:
                    symbols.setdefault(dim.dim_param, size)
                dim.Clear()
                dim.dim_value = size
    # What foreign operators make is known by its stored shape alone.
    _fix_values(graph.value_info, symbols)
    _fix_bodies(graph, symbols)
    return used


def _fix_bodies(graph: onnx.GraphProto, symbols: Mapping[str, int]) -> None:
    """Set the same symbols in subgraphs: inference does not carry sizes into the body of a loop."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                body = attribute.g
                _fix_values((*body.input, *body.output, *body.value_info), symbols)
                _fix_bodies(body, symbols)


def _fix_values(values: Iterable[onnx.ValueInfoProto], symbols: Mapping[str, int]) -> None:
    for value in values:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in symbols:
                size = symbols[dim.dim_param]
                dim.Clear()
                dim.dim_value = size
