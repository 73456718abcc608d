"""What many tests need: tiny models made here, and the cached sample models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hasten.zoo.fetch import cached


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
