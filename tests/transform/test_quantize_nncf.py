"""NNCF: ONNX stays ONNX, TFLite becomes OpenVINO's format, skipped nodes stay in float."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.engine.tflite import fully_connected
from tests.transform.small_models import images, quantized, small_convolutions

from hasten.data import Dataset
from hasten.data.dataset import Samples
from hasten.model.open import open_model
from hasten.transform.base import TransformFailed, transforms


def subject(folder: Path) -> tuple[Path, Samples]:
    return small_convolutions(folder / "convolutions.onnx"), images()


refused = quantized


def run(source: Path, folder: Path, samples: Samples, skip: tuple[str, ...] = (), **options: Any) -> Any:
    folder.mkdir()
    return transforms.get("quantize_nncf").run(source, folder, samples, options, skip)


def test_convolutions_are_quantized_and_a_skipped_one_is_not(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    both = onnx.load(str(run(source, tmp_path / "both", samples)[0]))
    one = onnx.load(str(run(source, tmp_path / "one", samples, skip=("second",))[0]))
    counts = [sum(node.op_type == "DequantizeLinear" for node in model.graph.node) for model in (both, one)]
    assert counts[0] > counts[1] > 0


def test_a_tflite_model_becomes_openvinos_format(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(16, 8)).astype(np.float32)
    source = fully_connected(tmp_path / "m.tflite", weights, np.zeros(8, np.float32), batch=1)
    samples = Dataset(inputs={"x": rng.normal(size=(20, 16)).astype(np.float32)}).subset(range(20))
    model, applied = run(source, tmp_path / "out", samples, reduce_range=True)
    assert model.name == "model.xml"
    assert open_model(model).format == "openvino"
    assert applied.operators_after["FakeQuantize"] >= 1
    assert applied.error < 0.2


def test_an_onnx_model_becomes_openvinos_format_where_the_recipe_says_so(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    results = [run(source, tmp_path / str(skip), samples, skip=skip, result="openvino") for skip in ((), ("second",))]
    (both, applied), (one, _) = results
    assert [open_model(model).format for model in (both, one)] == ["openvino", "openvino"]
    assert [s.name for s in open_model(both).signature.outputs] == [
        s.name for s in open_model(source).signature.outputs
    ]
    counts = [open_model(model).operators()["FakeQuantize"] for model in (both, one)]
    assert counts[0] > counts[1] > 0
    assert applied.error < 0.2


def test_a_preset_that_there_is_not_is_refused(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    with pytest.raises(TransformFailed, match="preset is performance or mixed"):
        run(source, tmp_path / "out", samples, preset="fastest")
    with pytest.raises(TransformFailed, match="result is onnx or openvino"):
        run(source, tmp_path / "out2", samples, result="tflite")
