"""Store weights in bf16: half the bytes on disk and on the wire, arithmetic in f32 as before.

ONNX Runtime has hardly any bf16 kernels on CPUs, so a graph that computes in bf16 would not run there. OpenVINO does
so when its precision hint asks for it, whatever the file holds, and needs no transform for it. What a file
can do for every engine is to carry bf16 weights behind a Cast that engines fold when they load. bf16 keeps the range
of f32 and 8 bits of its significand; rounding errors add up over many layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from hasten.model.base import Model
from hasten.model.onnx_file import save_proto
from hasten.transform.base import Options, Task, Transform
from hasten.transform.onnx_graph import graph_of, load, replace_nodes

__all__ = ["CastBf16"]

_FEWEST = 256


@final
class CastBf16(Transform):
    """Round f32 weights to bf16 and store them so. Sites are the weights, by name; small ones stay as they are."""

    name = "cast_bf16"
    promise = "approximate"

    def requires(self, model: Model, options: Options) -> str | None:
        """A large f32 initializer, and an operator set whose Cast knows bf16."""
        if model.opset < 13:
            return f"casting bf16 needs operator set 13, the model uses {model.opset} (raise_opset first)."
        if not self.sites(model, options):
            return f"the model has no f32 initializer of {_FEWEST} elements or more (fold first)."
        return None

    def sites(self, model: Model, options: Options) -> Sequence[str]:
        """Names of the f32 initializers that are worth it."""
        graph = graph_of(model)
        given = {value.name for value in graph.input}
        return [t.name for t in graph.initializer if _is_large(t) and t.name not in given]

    def apply(self, task: Task) -> None:
        """Replace each weight by its rounded form and a Cast of the old name."""
        proto = load(task.model)
        wanted = set(self.sites(task.model, task.options)) - task.skip
        casts: list[onnx.NodeProto] = []
        for tensor in proto.graph.initializer:
            if tensor.name in wanted:
                name = tensor.name
                values = numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16)
                tensor.CopyFrom(_stored(values, f"{name}/bf16"))
                casts.append(
                    helper.make_node("Cast", [f"{name}/bf16"], [name], name=f"{name}/cast", to=onnx.TensorProto.FLOAT)
                )
        replace_nodes(proto.graph, [*casts, *proto.graph.node])
        save_proto(proto, task.out)


def _stored(values: np.ndarray, name: str) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.BFLOAT16)
    tensor.dims.extend(values.shape)
    tensor.raw_data = values.view(np.uint16).astype("<u2").tobytes()
    return tensor


def _is_large(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == onnx.TensorProto.FLOAT and math.prod(tensor.dims) >= _FEWEST
