"""Weight-only quantization: smaller files, float arithmetic, both forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.transform.small_models import matrices, quantized

from hasten.engine.base import engines
from hasten.model.open import open_model
from hasten.spec.target import Target
from hasten.transform.base import TransformFailed, transforms

subject = matrices
refused = quantized


def run(tmp_path: Path, skip: tuple[str, ...] = (), **options: Any) -> Any:
    source, samples = subject(tmp_path)
    (tmp_path / "out").mkdir()
    return transforms.get("quantize_weights").run(source, tmp_path / "out", samples, options, skip)


@pytest.mark.parametrize(("bits", "most"), [(8, 0.02), (4, 0.2)])
def test_packed_products_answer_nearly_as_before(bits: int, most: float, tmp_path: Path) -> None:
    model, applied = run(tmp_path, bits=bits)
    assert open_model(model).operators()["MatMulNBits"] == 2
    assert applied.error < most


def test_fewer_bits_make_a_smaller_file(tmp_path: Path) -> None:
    sizes = []
    for bits in (4, 8):
        folder = tmp_path / str(bits)
        folder.mkdir()
        sizes.append(open_model(run(folder, bits=bits)[0]).bytes_on_disk)
    assert sizes[0] < sizes[1] < open_model(subject(tmp_path)[0]).bytes_on_disk


def test_the_standard_form_runs_on_every_onnx_engine(tmp_path: Path) -> None:
    model, applied = run(tmp_path, form="dequantize", embeddings=True)
    assert open_model(model).operators()["DequantizeLinear"] == 4
    tokens = np.random.default_rng(2).integers(0, 50, (3, 6))
    answers = [
        engines.get(name).load(model, Target(engine=name)).run({"tokens": tokens})["y"]
        for name in ("onnxruntime", "openvino")
    ]
    # OpenVINO multiplies such weights in int8, so it rounds activations too.
    np.testing.assert_allclose(answers[0], answers[1], atol=0.02 * np.abs(answers[0]).max())
    assert applied.error < 0.02


def test_a_skipped_product_keeps_its_weights(tmp_path: Path) -> None:
    model, _ = run(tmp_path, skip=("up",))
    operators = open_model(model).operators()
    assert operators["MatMulNBits"] == 1
    assert operators["MatMul"] == 1


@pytest.mark.parametrize("options", [{"bits": 3}, {"form": "magic"}, {"form": "dequantize", "bits": 4}])
def test_forms_and_widths_that_there_are_not_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(TransformFailed, match="does not apply"):
        run(tmp_path, **options)
