"""What many tests need: tiny models made here, and the cached sample models."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hasten.data import Dataset
from hasten.engine.base import Device, Probe
from hasten.engine.onnxruntime import OnnxRuntime
from hasten.optimize.run import Job, run
from hasten.spec.slo import Goal, Slo
from hasten.spec.target import Target
from hasten.testing import FakeArm, FakeLoader
from hasten.zoo.fetch import cached

# What a test learns is no experience of this machine. Set here, so that commands that tests start inherit it.
os.environ["HASTEN_HISTORY"] = "off"


def linear_model(path: Path, *, features: int = 4, classes: int = 3, batch: str | int = "batch", seed: int = 0) -> Path:
    """Write y = x · W + b: input x [batch, features], output y [batch, classes], both f32."""
    rng = np.random.default_rng(seed)
    weights = numpy_helper.from_array(rng.normal(size=(features, classes)).astype(np.float32), "W")
    bias = numpy_helper.from_array(rng.normal(size=classes).astype(np.float32), "b")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, classes])],
        [weights, bias],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


@pytest.fixture
def make_linear(tmp_path: Path) -> Callable[..., Path]:
    """Make tiny models in the test's own folder."""

    def make(name: str = "linear.onnx", **options: object) -> Path:
        return linear_model(tmp_path / name, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def zoo_file() -> Callable[[str], Path]:
    """The cached file of a sample model; `make zoo` puts it there."""

    def get(name: str) -> Path:
        path = cached(name)
        assert path is not None, f"the sample model {name} is not in the cache: run make zoo"
        return path

    return get


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a tiny model with a picked variant, written by the product from a run with made-up arms.

    The picked variant runs on the real openvino engine; its figures are made up, which these tests do not look at.
    """
    folder = tmp_path_factory.mktemp("small")
    model = linear_model(folder / "model.onnx")
    x = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    real = OnnxRuntime().load(model, Target(engine="onnxruntime"))

    def arm(ms: float) -> Callable[[], FakeArm]:
        return lambda: FakeArm(real.signature, real.run, ms=ms)

    table = {("onnxruntime", "f32", 0): arm(10.0)}
    table |= {("openvino", "f32", threads): arm(5.0) for threads in range(1, 129)}
    cpu = Device(name="CPU", hardware="CPU", detail="imaginary", precisions=("f32",))
    outcome = run(
        Job(
            model=model,
            data=Dataset(inputs={"x": x}),
            goal=Goal(slo=Slo(accuracy_drop_max=0.05)),
            out=folder / "linear.bundle",
            name="linear",
            render=lambda record: "<p>report</p>",
            loader=FakeLoader(table),
            probe=lambda: [Probe(engine="openvino", version="1", devices=(cpu,))],
            cores_given=lambda: 999.0,
        )
    )
    assert outcome.record.verdict == "accepted", outcome.record.summary
    assert outcome.bundle is not None
    return outcome.bundle
