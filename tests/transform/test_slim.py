"""onnxslim simplifies; what it gets wrong is found, left out and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxslim
import pytest
from onnx import numpy_helper
from tests.transform.text_models import apply, normal, operators, sample, write

from hasten.data.dataset import Samples
from hasten.model.open import open_model
from hasten.transform.base import TransformFailed

TEXT = (
    "(float[N, 8] x, float[N, 8] idle) => (float[N, 8] y) { a = MatMul(x, W) i = Identity(a) b = MatMul(x, W) "
    "r = Reshape(i, wide) q = Reshape(r, flat) y = Add(q, b) }"
)
WEIGHTS = {"W": normal(8, 8), "wide": np.array([-1, 2, 4]), "flat": np.array([-1, 8])}


def subject(folder: Path) -> tuple[Path, Samples]:
    return write(folder / "model.onnx", TEXT, WEIGHTS), sample(x=(8,), idle=(8,))


def refused(folder: Path) -> tuple[Path, Samples]:
    path, samples = subject(folder)
    proto = onnx.load(str(path))
    node = onnx.helper.make_node("Relu", ["a"], ["b"])
    sets = [onnx.helper.make_opsetid("", 17)]
    proto.functions.append(onnx.helper.make_function("own", "Bend", ["a"], ["b"], [node], sets))
    onnx.save(proto, str(path))
    return path, samples


def test_reshapes_in_a_row_and_common_subexpressions_are_merged(tmp_path: Path) -> None:
    model, _ = apply("slim", *subject(tmp_path))
    assert operators(model)["MatMul"] == 1
    assert operators(model)["Reshape"] < 2
    assert "Identity" not in operators(model)


def test_a_pass_that_is_skipped_is_not_run(tmp_path: Path) -> None:
    model, applied = apply("slim", *subject(tmp_path), skip=["subexpression_elimination"])
    assert operators(model)["MatMul"] == 2
    assert [item.site for item in applied.skipped] == ["subexpression_elimination"]


def test_an_input_that_nobody_reads_stays_in_its_place(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    assert open_model(apply("slim", source, samples)[0]).signature == open_model(source).signature


def test_a_pass_that_changes_the_answers_is_found_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = onnxslim.slim

    def wrong(proto: onnx.ModelProto, **settings: Any) -> Any:
        slimmed = real(proto, **settings)
        if "weight_tying" not in settings["skip_optimizations"]:
            tensor = next(item for item in slimmed.graph.initializer if item.dims == [8, 8])
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 2, tensor.name))
        return slimmed

    monkeypatch.setattr(onnxslim, "slim", wrong)
    model, applied = apply("slim", *subject(tmp_path))
    assert [item.site for item in applied.skipped] == ["weight_tying"]
    assert "differs by more than rounding" in applied.skipped[0].reason
    assert operators(model)["MatMul"] == 1


def test_a_library_that_gives_nothing_back_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxslim, "slim", lambda proto, **settings: None)
    with pytest.raises(TransformFailed, match="gave no model back"):
        apply("slim", *subject(tmp_path))


def test_a_model_with_nothing_to_simplify_is_left_alone(tmp_path: Path) -> None:
    source = write(
        tmp_path / "model.onnx", "(float[N, 8] x) => (float[N, 8] y) { y = MatMul(x, W) }", {"W": WEIGHTS["W"]}
    )
    with pytest.raises(TransformFailed, match="onnxslim finds nothing to simplify"):
        apply("slim", source, sample(x=(8,)))


def test_weights_in_a_file_beside_the_model_come_along(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    beside = tmp_path / "beside" / "model.onnx"
    beside.parent.mkdir()
    onnx.save_model(
        onnx.load(str(source)), str(beside), save_as_external_data=True, location="w.bin", size_threshold=128
    )
    model = open_model(apply("slim", beside, samples)[0])
    assert model.files() == [model.path]
    assert model.parameters() == 64
