"""Techniques on models whose weights lie in other files: what they write is whole without the original's files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper
from tests.model.onnx_models import ROWS, WEIGHTS, external, save, weights_file

from hasten.data import Dataset
from hasten.engine.onnxruntime import OnnxRuntime
from hasten.model.open import open_model
from hasten.spec.target import Target
from hasten.transform.base import transforms

X = np.random.default_rng(0).normal(size=(8, ROWS)).astype(np.float32)


def answer_of(source: Path, out: Path, technique: str) -> np.ndarray:
    """Apply the technique, take the original away, and run what is left."""
    out.mkdir()
    samples = Dataset(inputs={"x": X}).subset(range(len(X)))
    made, _ = transforms.get(technique).run(source, out, samples, {})
    shutil.rmtree(source.parent)
    assert all(file.is_relative_to(out) for file in open_model(made).files())
    return OnnxRuntime().load(made, Target(engine="onnxruntime")).run({"x": X})["y"]


@pytest.mark.parametrize("technique", ["fold", "cast_f16", "quantize_dynamic", "quantize_static"])
def test_what_a_technique_writes_stands_without_the_files_of_the_original(tmp_path: Path, technique: str) -> None:
    weights_file(tmp_path / "outside" / "deep" / "w.bin")
    outside = save(tmp_path / "outside" / "m.onnx", external("deep/w.bin"))
    (tmp_path / "inside").mkdir()
    inside = save(tmp_path / "inside" / "m.onnx", numpy_helper.from_array(WEIGHTS, "W"))
    np.testing.assert_array_equal(
        answer_of(outside, tmp_path / "a", technique), answer_of(inside, tmp_path / "b", technique)
    )
