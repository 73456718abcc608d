"""Raising an operator set keeps answers, metadata and plain softmaxes, and says why where it cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.conftest import linear_model
from tests.transform.text_models import apply, normal, operators, sample, write

from hasten.data.dataset import Samples
from hasten.model.open import open_model
from hasten.transform.base import TransformFailed

TEXT = (
    "(float[N, 2, 8] x) => (float[N, 2, 8] y) { h = MatMul(x, W) s = Softmax <axis = 2> (h) "
    "u = Unsqueeze <axes = [3]> (s) y = Squeeze <axes = [3]> (u) }"
)


def subject(folder: Path) -> tuple[Path, Samples]:
    return write(folder / "model.onnx", TEXT, {"W": normal(8, 8)}, opset=11), sample(x=(2, 8))


def refused(folder: Path) -> tuple[Path, Samples]:
    return linear_model(folder / "model.onnx"), sample(x=(4,))


def test_a_softmax_over_the_last_axis_stays_one_node(tmp_path: Path) -> None:
    model = apply("raise_opset", *subject(tmp_path))[0]
    assert open_model(model).opset == 17
    assert operators(model) == {"MatMul": 1, "Softmax": 1, "Unsqueeze": 1, "Squeeze": 1}


def test_a_softmax_over_several_axes_keeps_its_old_meaning(tmp_path: Path) -> None:
    text = "(float[N, 2, 8] x) => (float[N, 2, 8] y) { h = MatMul(x, W) y = Softmax <axis = 1> (h) }"
    source = write(tmp_path / "model.onnx", text, {"W": normal(8, 8)}, opset=11)
    model, applied = apply("raise_opset", source, sample(x=(2, 8)))
    assert operators(model)["Flatten"] == 1
    assert applied.error is not None and applied.error < 1e-6


def test_weights_beside_the_model_come_along(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    proto = onnx.load(str(source))
    beside = tmp_path / "beside"
    beside.mkdir()
    onnx.save_model(
        proto, str(beside / "model.onnx"), save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    model = apply("raise_opset", beside / "model.onnx", samples)[0]
    assert open_model(model).parameters() == 64


def test_metadata_is_kept(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    proto = onnx.load(str(source))
    proto.metadata_props.add(key="labels", value="cat,dog")
    onnx.save(proto, str(source))
    assert open_model(apply("raise_opset", source, samples)[0]).metadata() == {"labels": "cat,dog"}


def test_an_operator_set_that_onnx_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TransformFailed, match=r"knows operator sets up to \d+, not 999"):
        apply("raise_opset", *subject(tmp_path), {"to": 999})


def test_a_model_that_is_there_already_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(TransformFailed, match="already uses operator set 17"):
        apply("raise_opset", *refused(tmp_path))


def test_what_the_converter_cannot_do_is_a_reason(tmp_path: Path) -> None:
    """A batch normalization that was exported in training mode."""
    source = write(
        tmp_path / "model.onnx",
        "(float[N, 4] x) => (float[N, 4] y) { y, m, v, a, b = BatchNormalization(x, g, g, g, g) }",
        {"g": np.ones(4, np.float32)},
        opset=9,
    )
    with pytest.raises(TransformFailed, match="converter gave up: BatchNormalization outputs 4 and 5"):
        apply("raise_opset", source, sample(x=(4,)))


def test_operators_of_the_runtimes_own_come_along(tmp_path: Path) -> None:
    source = write(
        tmp_path / "model.onnx",
        "(float[N, 8] x) => (float[N, 8] y) { h = com.microsoft.Gelu(x) y = MatMul(h, W) }",
        {"W": normal(8, 8)},
        opset=12,
        domain="com.microsoft",
    )
    assert operators(apply("raise_opset", source, sample(x=(8,)))[0]) == {"Gelu": 1, "MatMul": 1}
