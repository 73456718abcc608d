"""The main job on models of every format, with real engines: each ends in a bundle that verifies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest
import torch
from tests.engine.tflite import fully_connected

import hasten
from hasten.data import Dataset
from hasten.model.open import open_model
from hasten.spec.preprocess import Preprocess

Make = Callable[..., Path]
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(160, 4)).astype(np.float32)
BUDGET_S = 8.0


def optimized(model: Any, data: Dataset, tmp_path: Path, **options: Any) -> hasten.Result:
    options = {"budget_s": BUDGET_S, "rehearse": False, **options}
    result = hasten.optimize(model, data=data, out=tmp_path / "out.bundle", **options)
    assert result.bundle is not None, result.summary
    assert hasten.open_bundle(result.bundle).problems() == []
    return result


def engines_tried(result: hasten.Result) -> set[str]:
    record = result.record
    tried = [*(item.variant for item in record.tuning), *(item.variant for item in record.rejected)]
    return {variant.target.engine for variant in tried}


@pytest.mark.slow
def test_a_tflite_model_is_measured_against_litert(tmp_path: Path) -> None:
    weights = RNG.normal(size=(4, 3)).astype(np.float32)
    model = fully_connected(tmp_path / "m.tflite", weights, np.zeros(3, np.float32))
    result = optimized(model, Dataset(inputs={"x": ROWS}), tmp_path)
    assert result.record.reference.variant.target.engine == "litert"
    assert {"litert", "openvino"} <= engines_tried(result)
    assert result.record.model["format"] == "tflite"


@pytest.mark.slow
def test_an_openvino_model_is_packed_with_its_weights(tmp_path: Path, make_linear: Make) -> None:
    ov.save_model(ov.Core().read_model(str(make_linear())), str(tmp_path / "m.xml"))
    result = optimized(tmp_path / "m.xml", Dataset(inputs={"x": ROWS}), tmp_path)
    bundle = hasten.open_bundle(result.bundle).bundle  # type: ignore[arg-type]
    kept = [path.name for path in open_model(bundle.model_path("reference")).files()]
    assert kept == ["m.xml", "m.bin"]


@pytest.mark.slow
def test_external_weights_are_packed_beside_the_graph(tmp_path: Path, make_linear: Make) -> None:
    proto = onnx.load(str(make_linear(features=64, classes=32)))
    path = tmp_path / "large.onnx"
    onnx.save_model(proto, str(path), save_as_external_data=True, location="large.weights", size_threshold=0)
    data = Dataset(inputs={"x": RNG.normal(size=(160, 64)).astype(np.float32)})
    result = optimized(path, data, tmp_path)
    bundle = hasten.open_bundle(result.bundle).bundle  # type: ignore[arg-type]
    kept = [file.name for file in open_model(bundle.model_path("reference")).files()]
    assert kept == ["large.onnx", "large.weights"]


class _Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Linear(4, 16)
        self.drop = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(16, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.drop(torch.relu(self.body(x))))


@pytest.mark.slow
def test_a_pytorch_module_is_exported_checked_and_measured_against_pytorch(tmp_path: Path) -> None:
    result = optimized(_Net(), Dataset(inputs={"x": ROWS}), tmp_path)
    record = result.record
    assert record.reference.variant.target.engine == "torch"
    assert "onnxruntime" in engines_tried(result)
    assert record.model["format"] == "torch"
    assert not list(tmp_path.glob(".*.pt2")), "the exported file was only needed while the run lasted"


def test_a_module_that_is_none_is_refused_in_words(tmp_path: Path) -> None:
    from hasten.errors import ModelError

    with pytest.raises(ModelError, match=r"dict is not a torch\.nn\.Module"):
        hasten.optimize({}, data=Dataset(inputs={"x": ROWS}), out=tmp_path / "b")


def pixels_model(path: Path) -> Path:
    from onnx import TensorProto, helper, numpy_helper

    kernel = RNG.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)
    spec = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w"], ["c"], name="conv", pads=[1] * 4),
            helper.make_node("GlobalAveragePool", ["c"], ["p"], name="pool"),
            helper.make_node("Flatten", ["p"], ["y"], name="flatten"),
        ],
        "pixels",
        [spec("image", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [spec("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(kernel, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.mark.slow
def test_preprocessing_in_the_graph_makes_a_bundle_that_takes_pixels(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (160, 8, 8, 3), dtype=np.uint8)
    data = Dataset(
        inputs={"image": pixels}, preprocess=Preprocess(input="image", mean=(127.0,) * 3, std=(64.0, 60.0, 58.0))
    )
    result = optimized(pixels_model(tmp_path / "m.onnx"), data, tmp_path, fold_preprocess=True)
    handle = hasten.open_bundle(result.bundle)  # type: ignore[arg-type]
    [spec] = handle.manifest.signature.inputs
    assert spec.dtype == "UINT8"
    assert spec.shape[1:] == (8, 8, 3)
    answer = handle.predict({spec.name: pixels[:1]})
    assert next(iter(answer.values())).shape == (1, 4)
    assert "fold_preprocess" in str(result.record.model["prepared"])


def test_data_that_does_not_say_how_pixels_are_prepared_is_told(tmp_path: Path, make_linear: Make) -> None:
    from hasten.errors import UsageError

    with pytest.raises(UsageError, match="does not say how pixels"):
        hasten.optimize(make_linear(), data=Dataset(inputs={"x": ROWS}), out=tmp_path / "b", fold_preprocess=True)
