"""PyTorch eager and compiled: the same answers, the precision that was really used, devices that are not there."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tests.conftest import linear_model

from hasten.engine.base import engines
from hasten.engine.isolate import load_isolated
from hasten.errors import EngineLoadError, EngineRunError
from hasten.model.torch_export import export_module
from hasten.spec.target import Runtime, Target


class _Linear(torch.nn.Module):
    def __init__(self, weights: np.ndarray, bias: np.ndarray) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.from_numpy(weights.copy()))
        self.bias = torch.nn.Parameter(torch.from_numpy(bias.copy()))

    def forward(self, x: Any) -> Any:
        y = x @ self.weights + self.bias
        return y


def subject(folder: Path) -> Path:
    """The linear model of all engine tests, as a PyTorch program."""
    proto = onnx.load(str(linear_model(folder / "linear.onnx")))
    weights = {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer}
    export_module(_Linear(weights["W"], weights["b"]), [{"x": np.zeros(4, np.float32)}], folder / "linear.pt2")
    return folder / "linear.pt2"


X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def load(path: Path, **options: Any) -> Any:
    return engines.get("torch").load(path, Target(engine="torch", threads=1, **options))


def only(outputs: dict[str, np.ndarray]) -> np.ndarray:
    [value] = outputs.values()
    return value


class _Mixed(torch.nn.Module):
    """Takes an input in order, a pair in a list, and one by name."""

    def forward(self, x: Any, pair: list[Any], *, scale: Any) -> Any:
        return (x + 10 * pair[0] + 100 * pair[1]) * scale


@pytest.mark.parametrize("mode", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_inputs_reach_forward_in_the_way_in_which_it_was_exported(mode: str, tmp_path: Path) -> None:
    # Four tensors: the exporter takes one that is given twice for one input.
    x, left, right, scale = (torch.ones(2, 3) for _ in range(4))
    program = torch.export.export(_Mixed().eval(), (x, [left, right]), {"scale": scale})
    torch.export.save(program, str(tmp_path / "m.pt2"))
    session = load(tmp_path / "m.pt2", options={"compile": mode})
    names = [spec.name for spec in session.signature.inputs]
    assert len(names) == 4
    inputs = {name: np.full((2, 3), value, np.float32) for name, value in zip(names, (1, 2, 3, 4), strict=True)}
    np.testing.assert_allclose(only(session.run(inputs)), np.full((2, 3), (1 + 20 + 300) * 4, np.float32))


@pytest.mark.slow
def test_compiled_ahead_of_time_it_answers_as_eager_does_in_batches_of_any_size(tmp_path: Path) -> None:
    path = subject(tmp_path)
    eager = load(path)
    # In a process of its own, as everywhere in the product: compiled libraries change how their process computes.
    compiled = load_isolated(path, Target(engine="torch", threads=1, options={"compile": "aot"}))
    with contextlib.closing(compiled):
        for rows in (1, 2, 5):
            np.testing.assert_allclose(
                only(compiled.run({"x": X[:rows]})), only(eager.run({"x": X[:rows]})), rtol=1e-5, atol=1e-6
            )


def test_bf16_is_read_back_and_leaves_the_interface_alone(tmp_path: Path) -> None:
    path = subject(tmp_path)
    narrow, wide = load(path, precision="bf16"), load(path)
    assert (narrow.precision, wide.precision) == ("bf16", "f32")
    answer = only(narrow.run({"x": X}))
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, only(wide.run({"x": X})), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("device", ["CUDA", "MPS", "XPU"])
def test_a_device_that_is_not_here_is_told_and_refused(device: str, tmp_path: Path) -> None:
    [absent] = [item for item in engines.get("torch").probe().absent if item.name == device]
    assert absent.remedy
    with pytest.raises(EngineLoadError, match="finds no device"):
        load(subject(tmp_path), device=device)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"compile": "magic"}, "no mode 'magic'"), ({"nonsense": 1}, "no option 'nonsense'")],
)
def test_unknown_options_are_refused_with_those_it_takes(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(EngineLoadError, match=words) as caught:
        load(subject(tmp_path), options=options)
    assert "inductor" in caught.value.remedy


def test_a_precision_that_it_cannot_make_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineLoadError, match="into int8"):
        load(subject(tmp_path), precision="int8")


def test_a_knob_that_it_does_not_obey_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineLoadError, match="no runtime knob 'io_binding'"):
        load(subject(tmp_path), runtime=Runtime(io_binding=True))


def test_a_wrong_shape_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(EngineRunError, match="has 5 at axis 1"):
        load(subject(tmp_path)).run({"x": np.zeros((1, 5), np.float32)})
