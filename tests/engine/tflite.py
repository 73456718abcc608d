"""Tiny TFLite files, written field by field with the schema's own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

__all__ = ["copy", "fully_connected"]


def fully_connected(
    path: Path,
    weights: np.ndarray,
    bias: np.ndarray,
    *,
    batch: int = -1,
    custom: str | None = None,
) -> Path:
    """Write y = x · W + b: input x [batch, features] and output y [batch, classes], both f32; batch -1 is open."""
    features, classes = weights.shape
    rows = max(batch, 1)
    model = schema.ModelT()
    model.version = 3
    model.description = "made for tests"
    model.buffers = [schema.BufferT() for _ in range(3)]
    for buffer, values in zip(model.buffers[1:], (weights.T, bias), strict=True):
        buffer.data = list(np.ascontiguousarray(values, np.float32).tobytes())
    shapes = [("x", [rows, features], 0), ("W", [classes, features], 1), ("b", [classes], 2), ("y", [rows, classes], 0)]
    graph = schema.SubGraphT()
    graph.name = "main"
    graph.tensors = [_tensor(name, shape, buffer) for name, shape, buffer in shapes]
    if batch < 0:
        graph.tensors[0].shapeSignature = [-1, features]
        graph.tensors[3].shapeSignature = [-1, classes]
    graph.inputs, graph.outputs = [0], [3]
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = [0, 1, 2], [3]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    number = schema.BuiltinOperator.CUSTOM if custom else schema.BuiltinOperator.FULLY_CONNECTED
    return _write(path, model, graph, operator, number, custom)


def copy(path: Path, kind: str) -> Path:
    """Write y = x: both [2, 2] of the element type `kind`, a name of `schema.TensorType`."""
    model = schema.ModelT()
    model.version = 3
    model.buffers = [schema.BufferT()]
    graph = schema.SubGraphT()
    graph.name = "main"
    graph.tensors = [_tensor(name, [2, 2], 0, getattr(schema.TensorType, kind)) for name in "xy"]
    graph.inputs, graph.outputs = [0], [1]
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = [0], [1]
    operator.builtinOptionsType = schema.BuiltinOptions.ReshapeOptions
    operator.builtinOptions = schema.ReshapeOptionsT()
    operator.builtinOptions.newShape = [2, 2]
    return _write(path, model, graph, operator, schema.BuiltinOperator.RESHAPE)


def _write(path: Path, model: Any, graph: Any, operator: Any, number: int, custom: str | None = None) -> Path:
    graph.operators = [operator]
    model.subgraphs = [graph]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = number
    code.customCode = custom
    code.version = 1
    model.operatorCodes = [code]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def _tensor(name: str, shape: list[int], buffer: int, kind: int = schema.TensorType.FLOAT32) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name, shape, buffer
    tensor.type = kind
    return tensor
