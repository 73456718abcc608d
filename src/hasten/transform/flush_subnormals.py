"""Set weights that are smaller than the smallest normal number to zero: processors compute with them 10 times slower.

Pruning, weight decay and folded batch normalization leave such numbers behind. The smallest normal f32 is 1.2e-38
(IEEE 754), far below the rounding of any sum that they could contribute to.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from hasten.model.base import Model
from hasten.model.lint_weights import raw_bytes
from hasten.model.onnx_file import OnnxModel, all_nodes, save_proto
from hasten.transform.base import Options, Task, Transform
from hasten.transform.graph import all_graphs
from hasten.transform.onnx_graph import QUANTIZED, load

__all__ = ["FlushSubnormals"]

_SINGLE: dict[int, type[np.floating[Any]]] = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64}
# Elements that are looked at at a time.
_PIECE = 2**22
_HALF: dict[int, type[np.floating[Any]]] = {TensorProto.FLOAT16: np.float16}


@final
class FlushSubnormals(Transform):
    """Zero in place of subnormal weights: f32 and f64 always, f16 with the option `half`."""

    name = "flush_subnormals"
    promise = "exact"

    defaults = {"half": False}

    def requires(self, model: Model, options: Options) -> str | None:
        """At least one subnormal weight."""
        assert isinstance(model, OnnxModel), "the base lets only the declared formats through"
        found = any(_count(tensor, model.path.parent, options) for tensor in _weights(model.proto.graph))
        return None if found else "the model has no subnormal weights."

    def apply(self, task: Task) -> None:
        """Rewrite the tensors that hold some; all others keep their bytes."""
        proto, counts = load(task.model), list[int]()
        for tensor in _weights(proto.graph):
            count = _count(tensor, task.model.path.parent, task.options)
            if count:
                value = numpy_helper.to_array(tensor).copy()
                value[np.abs(value) < np.finfo(value.dtype).tiny] = 0
                _store(tensor, value)
                counts.append(count)
        task.notes.append(f"{sum(counts)} subnormal weights in {len(counts)} tensors became zero.")
        save_proto(proto, task.out)


def _weights(whole: onnx.GraphProto) -> Iterator[TensorProto]:
    """All constants, at every depth, but for scales of quantization: a scale of zero would divide by zero."""
    scales = {name for node in all_nodes(whole) if node.op_type.startswith(QUANTIZED) for name in node.input[1:]}
    for graph in all_graphs(whole):
        yield from (tensor for tensor in graph.initializer if tensor.name not in scales)
        yield from (item.values for item in graph.sparse_initializer)
        for node in graph.node:
            if node.output[0] not in scales:
                yield from (item.t for item in node.attribute if item.type == onnx.AttributeProto.TENSOR)


def _count(tensor: TensorProto, folder: Path, options: Options) -> int:
    """How many subnormal numbers a tensor holds; external ones are looked at in their file, piece by piece."""
    kinds = {**_SINGLE, **(_HALF if options["half"] else {})}
    kind = kinds.get(tensor.data_type)
    if kind is None:
        return 0
    values, count = raw_bytes(tensor, folder).view(kind), 0
    for start in range(0, len(values), _PIECE):
        magnitude = np.abs(values[start : start + _PIECE])
        count += int(np.count_nonzero((magnitude > 0) & (magnitude < np.finfo(kind).tiny)))
    return count


def _store(tensor: TensorProto, value: np.ndarray[Any, Any]) -> None:
    for part in ("float_data", "double_data", "int32_data"):
        tensor.ClearField(part)
    tensor.raw_data = numpy_helper.from_array(value).raw_data
