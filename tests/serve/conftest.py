"""A tiny bundle that is real in every part: y = x @ WEIGHT + BIAS, run by ONNX Runtime in its own process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hasten.bundle.manifest import MANIFEST, SCHEMA, FileEntry, Manifest, VariantEntry, encode_manifest
from hasten.bundle.read import Bundle, open_bundle, sha256_of
from hasten.engine.host import environment
from hasten.spec.measurement import NOT_MEASURED
from hasten.spec.signature import Signature
from hasten.spec.target import Target
from hasten.spec.tensor import TensorSpec
from hasten.spec.variant import REFERENCE, Variant

Array = np.ndarray[Any, Any]

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3) / 8
BIAS = np.array([0.5, -1.0, 2.0], np.float32)
MODEL = f"variants/{REFERENCE}/model.onnx"
SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="FP32", shape=("batch", 4)),),
    outputs=(TensorSpec(name="y", dtype="FP32", shape=("batch", 3)),),
)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    for part in (f"variants/{REFERENCE}", "golden"):
        (folder / part).mkdir(parents=True)
    onnx.save(_model(), folder / MODEL)
    sample = np.ones((1, 4), np.float32)
    np.savez(folder / "golden/inputs.npz", allow_pickle=False, **{"0/x": sample})
    np.savez(folder / f"golden/{REFERENCE}.npz", allow_pickle=False, **{"0/y": sample @ WEIGHT + BIAS})
    (folder / MANIFEST).write_bytes(encode_manifest(_manifest(folder)))
    return open_bundle(folder)


@pytest.fixture(scope="session")
def expected() -> Any:
    """What the model gives for an input, computed without the server."""
    return lambda x: np.asarray(x, np.float32) @ WEIGHT + BIAS


def _model() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(BIAS, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _manifest(folder: Path) -> Manifest:
    variant = Variant(id=REFERENCE, target=Target(engine="onnxruntime", threads=1, pin=False))
    entry = VariantEntry(
        variant=variant,
        model=MODEL,
        tolerance={"y": 1e-4},
        latency_p50_ms=NOT_MEASURED,
        throughput_rps=NOT_MEASURED,
        accuracy=NOT_MEASURED,
    )
    return Manifest(
        schema=SCHEMA,
        name="tiny",
        signature=SIGNATURE,
        picked=REFERENCE,
        ladder=(REFERENCE,),
        variants={REFERENCE: entry},
        max_batch=8,
        environment=environment(),
        created="2025-01-01T00:00:00+00:00",
        files=tuple(_hashes(folder)),
    )


def _hashes(folder: Path) -> list[FileEntry]:
    entries: list[FileEntry] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        size, digest = sha256_of(path)
        entries.append(FileEntry(path=path.relative_to(folder).as_posix(), size=size, sha256=digest))
    return entries
