"""TFLite files are read without being run; damaged and foreign ones are refused, and never crash the reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.engine.tflite import fully_connected

from hasten.errors import ModelError
from hasten.model.open import format_of, open_model

W = np.arange(12, dtype=np.float32).reshape(4, 3)
B = np.zeros(3, np.float32)


def test_signature_operators_and_weights_are_read(tmp_path: Path) -> None:
    model = open_model(fully_connected(tmp_path / "m.tflite", W, B))
    assert model.format == "tflite"
    assert [str(spec) for spec in (*model.signature.inputs, *model.signature.outputs)] == [
        "x: FP32[?, 4]",
        "y: FP32[?, 3]",
    ]
    assert model.operators() == {"FULLY_CONNECTED": 1}
    assert model.parameters() == 15
    assert model.metadata() == {"description": "made for tests"}
    assert model.files() == [tmp_path / "m.tflite"]


def test_the_content_tells_the_format_whatever_the_name(tmp_path: Path) -> None:
    assert format_of(fully_connected(tmp_path / "model.onnx", W, B)) == "tflite"


@pytest.mark.parametrize(("name", "words"), [("FlexErf", "TensorFlow operators"), ("MyOp", "custom operator, 'MyOp'")])
def test_operators_that_need_a_library_are_refused_by_name(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=words):
        open_model(fully_connected(tmp_path / "m.tflite", W, B, custom=name))


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    raw = fully_connected(tmp_path / "m.tflite", W, B).read_bytes()
    for cut in np.linspace(8, len(raw) * 0.7, 16).astype(int):
        (tmp_path / "cut.tflite").write_bytes(raw[:cut])
        with pytest.raises(ModelError, match=r"not a complete TFLite file|element type"):
            open_model(tmp_path / "cut.tflite")


def test_flipped_bits_never_raise_anything_but_a_model_error(tmp_path: Path) -> None:
    raw = fully_connected(tmp_path / "m.tflite", W, B).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        bad = bytearray(raw)
        place = int(rng.integers(8, len(bad)))
        bad[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "bad.tflite").write_bytes(bytes(bad))
        try:
            open_model(tmp_path / "bad.tflite")
        except ModelError:
            refused += 1
    assert refused > 0
