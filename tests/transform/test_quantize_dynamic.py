"""Dynamic int8: matrix products with constant weights, and convolutions only where they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.transform.small_models import images, matrices, quantized, small_convolutions

from hasten.data.dataset import Samples
from hasten.model.open import open_model
from hasten.transform.base import TransformFailed, transforms

subject = matrices
refused = quantized


def run(folder: Path, source: Path, samples: Samples, skip: tuple[str, ...] = (), **options: Any) -> dict[str, int]:
    folder.mkdir()
    model, _ = transforms.get("quantize_dynamic").run(source, folder, samples, options, skip)
    return dict(open_model(model).operators())


def test_every_matrix_product_becomes_an_integer_one(tmp_path: Path) -> None:
    operators = run(tmp_path / "out", *subject(tmp_path))
    assert operators["MatMulInteger"] == 3
    assert "MatMul" not in operators


def test_a_skipped_product_stays_in_float(tmp_path: Path) -> None:
    operators = run(tmp_path / "out", *subject(tmp_path), skip=("down",))
    assert operators["MatMulInteger"] == 2
    assert operators["MatMul"] == 1


def test_convolutions_are_left_alone_unless_asked_for(tmp_path: Path) -> None:
    source = small_convolutions(tmp_path / "c.onnx")
    assert run(tmp_path / "plain", source, images())["Conv"] == 2
    assert run(tmp_path / "asked", source, images(), convolutions=True)["ConvInteger"] == 2


def test_a_model_without_constant_matrices_is_refused(tmp_path: Path) -> None:
    import numpy as np
    from onnx import TensorProto, helper
    from tests.transform.small_models import save

    from hasten.data import Dataset

    spec = helper.make_tensor_value_info
    path = save(
        tmp_path / "products.onnx",
        [helper.make_node("MatMul", ["a", "b"], ["y"])],
        [spec("a", TensorProto.FLOAT, [2, 3]), spec("b", TensorProto.FLOAT, [3, 2])],
        [spec("y", TensorProto.FLOAT, [2, 2])],
        {},
    )
    inputs = {"a": np.zeros((4, 2, 3), np.float32), "b": np.zeros((4, 3, 2), np.float32)}
    with pytest.raises(TransformFailed, match="no matrix product with constant weights"):
        run(tmp_path / "out", path, Dataset(inputs=inputs).subset(range(4)))
