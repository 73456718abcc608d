"""int8 that ruins a model and int8 that slows it down: both are measured, refused with the reason, and not packed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import hasten
from hasten.data import Dataset
from hasten.engine.base import Device, Probe
from hasten.engine.onnxruntime import OnnxRuntime
from hasten.optimize.run import Job, run
from hasten.spec.evidence import Record
from hasten.spec.slo import Goal, Slo
from hasten.spec.target import Target
from hasten.testing import FakeArm

Make = Callable[..., Job]
CLASSES = 3


def reasons(record: Record, precision: str) -> dict[str, str]:
    return {item.variant.id: item.reason for item in record.rejected if item.variant.target.precision == precision}


@pytest.fixture
def one_loud_feature(tmp_path: Path) -> tuple[Path, Dataset]:
    """A feature of size 1000 that says nothing beside three of size 1 that say everything: 256 levels see the first."""
    rng = np.random.default_rng(0)
    weights = np.zeros((4, CLASSES), np.float32)
    weights[1:] = np.eye(CLASSES)
    spec = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["y"], name="product")],
        "loud",
        [spec("x", TensorProto.FLOAT, ["n", 4])],
        [spec("y", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(weights, "W")],
    )
    path = tmp_path / "loud.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    x = rng.normal(size=(400, 4)).astype(np.float32)
    x[:, 0] = rng.uniform(-1000, 1000, 400)
    return path, Dataset(inputs={"x": x}, labels=x[:, 1:].argmax(1), name="loud")


@pytest.mark.slow
def test_int8_that_ruins_accuracy_is_refused_by_its_drop(
    one_loud_feature: tuple[Path, Dataset], tmp_path: Path
) -> None:
    model, data = one_loud_feature
    # Exhaustive, so that no candidate is stopped for its speed alone: int8 is slow on so small a model.
    record = hasten.optimize(
        model,
        data=data,
        slo=Goal(slo=Slo(accuracy_drop_max=0.05)),
        out=tmp_path / "out.bundle",
        budget_s=10.0,
        rehearse=False,
        exhaustive=True,
    ).record
    told = reasons(record, "int8")
    assert any("top1 drops by" in reason for name, reason in told.items() if "static" in name), told
    assert "int8" not in record.picked
    measured = [item for item in record.tuning if item.variant.id == "onnxruntime-int8-static-2t"]
    for item in measured:
        assert (item.measurement.accuracy_change.value or 0.0) < -0.2


def test_int8_that_is_slower_than_float_is_refused_by_its_speed(
    make_job: Make, make_linear: Callable[..., Path]
) -> None:
    """The technique works and the answers are right; the engine has no fast kernel for it."""
    real = OnnxRuntime().load(make_linear("same.onnx"), Target(engine="onnxruntime"))

    def arm(ms: float) -> Callable[[], FakeArm]:
        return lambda: FakeArm(real.signature, real.run, ms=ms)

    def apply(step: Any, source: Path, folder: Path, samples: Path, *, timeout_s: float = 9.0) -> Any:
        from hasten.spec.applied import Applied
        from hasten.transform.base import TransformFailed

        if not step.transform.startswith("quantize"):
            raise TransformFailed(f"{step.transform} does not apply: nothing to do.")
        (folder / "model.onnx").write_bytes(source.read_bytes())
        return folder / "model.onnx", Applied(transform=step.transform)

    cpu = Device(name="CPU", hardware="CPU", detail="imaginary", precisions=("f32", "int8"))
    x = np.random.default_rng(0).normal(size=(600, 4)).astype(np.float32)
    table = {("onnxruntime", "int8", threads): arm(14.0) for threads in range(1, 129)}
    table |= {("onnxruntime", "f32", threads): arm(10.0) for threads in range(129)}
    job = make_job(
        table,
        data=Dataset(inputs={"x": x}),
        apply=apply,
        probe=lambda: [Probe(engine="onnxruntime", version="1", devices=(cpu,))],
    )
    record = run(job).record
    assert record.verdict == "keep_reference"
    told = reasons(record, "int8")
    assert told
    assert all("0.7" in reason and "as fast as the reference" in reason for reason in told.values()), told
