"""Models that give back what they get, written for each server in its own form, so that all are asked the same.

A model is a name and its tensors. An input `x` comes back as the output `y`, of the same type and shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from servers.bundle import MODEL, complete_bundle

if TYPE_CHECKING:
    from hasten.spec.tensor import DType

MAX_BATCH = 16
TRITON_MODEL = """\
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        pairs = {pairs!r}
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor(given, pb_utils.get_input_tensor_by_name(request, taken).as_numpy())
                    for taken, given in pairs
                ]
            )
            for request in requests
        ]
"""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input, the output that repeats it, and what a row of it is; a named dimension is free."""

    taken: str
    given: str
    dtype: DType
    row: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Identity:
    """A model of some tensors."""

    name: str
    tensors: tuple[Tensor, ...]


TINY = Identity("tiny", (Tensor("x", "y", "FP32", (4,)),))
KINDS = Identity(
    "kinds",
    (
        Tensor("in_bool", "out_bool", "BOOL", (2,)),
        Tensor("in_int8", "out_int8", "INT8", (2,)),
        Tensor("in_uint8", "out_uint8", "UINT8", (2,)),
        Tensor("in_int64", "out_int64", "INT64", (2,)),
        Tensor("in_fp16", "out_fp16", "FP16", (2,)),
        Tensor("in_fp64", "out_fp64", "FP64", (2,)),
    ),
)
# With the name of `TINY`, so that whoever asks that can ask this.
WIDE = Identity("tiny", (Tensor("x", "y", "FP32", ("width",)),))
SMALL = Identity("small", (Tensor("x", "y", "FP32", (128,)),))
LARGE = Identity("large", (Tensor("x", "y", "FP32", (3, 224, 224)),))


def write_triton(model: Identity, repository: Path) -> None:
    """Write the model for Triton's Python backend into a model repository."""
    folder = repository / model.name
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(
        TRITON_MODEL.format(pairs=tuple((tensor.taken, tensor.given) for tensor in model.tensors))
    )
    lines = [f'name: "{model.name}"', 'backend: "python"', f"max_batch_size: {MAX_BATCH}", "dynamic_batching {}"]
    for tensor in model.tensors:
        kind = f"TYPE_{tensor.dtype}"
        lines.append(f'input [{{ name: "{tensor.taken}" data_type: {kind} dims: {list(tensor.row)} }}]')
        lines.append(f'output [{{ name: "{tensor.given}" data_type: {kind} dims: {list(tensor.row)} }}]')
    lines.append("instance_group [{ count: 1 kind: KIND_CPU }]")
    (folder / "config.pbtxt").write_text("\n".join(lines) + "\n")


def write_bundle(model: Identity, folder: Path) -> Path:
    """Write the model as a bundle; returns its folder."""
    import numpy as np
    import onnx
    from onnx import helper

    from hasten.spec.signature import Signature
    from hasten.spec.tensor import NUMPY_NAMES, TensorSpec

    def sides(side: str) -> tuple[list[Any], tuple[TensorSpec, ...]]:
        infos: list[Any] = []
        specs: list[TensorSpec] = []
        for tensor in model.tensors:
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(NUMPY_NAMES[tensor.dtype]))
            name, shape = getattr(tensor, side), ("batch", *tensor.row)
            infos.append(helper.make_tensor_value_info(name, kind, shape))
            specs.append(TensorSpec(name=name, dtype=tensor.dtype, shape=shape))
        return infos, tuple(specs)

    (taken, inputs), (given, outputs) = sides("taken"), sides("given")
    nodes = [helper.make_node("Identity", [tensor.taken], [tensor.given]) for tensor in model.tensors]
    made = helper.make_model(
        helper.make_graph(nodes, model.name, taken, given), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    folder.mkdir(parents=True)
    onnx.save(made, folder / MODEL)
    sizes = [[2 if isinstance(dim, str) else dim for dim in tensor.row] for tensor in model.tensors]
    samples = [np.ones((1, *row), NUMPY_NAMES[tensor.dtype]) for tensor, row in zip(model.tensors, sizes, strict=True)]
    return complete_bundle(
        folder,
        model.name,
        Signature(inputs=inputs, outputs=outputs),
        {tensor.taken: one for tensor, one in zip(model.tensors, samples, strict=True)},
        {tensor.given: one for tensor, one in zip(model.tensors, samples, strict=True)},
        MAX_BATCH,
    )
