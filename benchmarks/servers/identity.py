"""Models that give back what they get, written for each server in its own form, so that all are asked the same.

A model is a name and its tensors. An input `x` comes back as the output `y`, of the same type and shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    """An input, the output that repeats it, and what a row of it is."""

    taken: str
    given: str
    dtype: DType
    row: tuple[int, ...]


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
    """Write the model as a bundle of a reference alone, which needs no evidence; returns its folder."""
    import numpy as np
    import onnx
    from onnx import helper

    from hasten.bundle.manifest import MANIFEST, SCHEMA, FileEntry, Manifest, VariantEntry, encode_manifest
    from hasten.bundle.read import sha256_of
    from hasten.engine.host import environment
    from hasten.spec.measurement import NOT_MEASURED
    from hasten.spec.signature import Signature
    from hasten.spec.target import Target
    from hasten.spec.tensor import NUMPY_NAMES, TensorSpec
    from hasten.spec.variant import REFERENCE, Variant

    (folder / "golden").mkdir(parents=True)
    taken: list[Any] = []
    given: list[Any] = []
    for tensor in model.tensors:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(NUMPY_NAMES[tensor.dtype]))
        shape = ["batch", *tensor.row]
        taken.append(helper.make_tensor_value_info(tensor.taken, kind, shape))
        given.append(helper.make_tensor_value_info(tensor.given, kind, shape))
    nodes = [helper.make_node("Identity", [tensor.taken], [tensor.given]) for tensor in model.tensors]
    graph = helper.make_graph(nodes, model.name, taken, given)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "m.onnx")
    samples = {tensor: np.ones((1, *tensor.row), NUMPY_NAMES[tensor.dtype]) for tensor in model.tensors}
    np.savez(folder / "golden/inputs.npz", **{f"0/{tensor.taken}": sample for tensor, sample in samples.items()})
    golden = f"golden/{REFERENCE}.npz"
    np.savez(folder / golden, **{f"0/{tensor.given}": sample for tensor, sample in samples.items()})
    entry = VariantEntry(
        variant=Variant(id=REFERENCE, target=Target(engine="onnxruntime", threads=1, pin=False)),
        model="m.onnx",
        tolerance={tensor.given: 1e-6 for tensor in model.tensors},
        latency_p50_ms=NOT_MEASURED,
        throughput_rps=NOT_MEASURED,
        accuracy=NOT_MEASURED,
    )

    def specs(side: str) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name=getattr(tensor, side), dtype=tensor.dtype, shape=("batch", *tensor.row))
            for tensor in model.tensors
        )

    hashes = {path: sha256_of(folder / path) for path in ("m.onnx", "golden/inputs.npz", golden)}
    manifest = Manifest(
        schema=SCHEMA,
        name=model.name,
        signature=Signature(inputs=specs("taken"), outputs=specs("given")),
        picked=REFERENCE,
        ladder=(REFERENCE,),
        variants={REFERENCE: entry},
        max_batch=MAX_BATCH,
        environment=environment(),
        created="2026-01-01T00:00:00+00:00",
        files=tuple(FileEntry(path=path, size=size, sha256=digest) for path, (size, digest) in hashes.items()),
    )
    (folder / MANIFEST).write_bytes(encode_manifest(manifest))
    return folder
