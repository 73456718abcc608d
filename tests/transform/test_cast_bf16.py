"""bf16 weights: half the file, rounded once, the same on every engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from tests.conftest import linear_model
from tests.transform.small_models import matrices

from hasten.data.dataset import Samples
from hasten.engine.base import engines
from hasten.model.open import open_model
from hasten.spec.target import Target
from hasten.transform.base import transforms

subject = matrices


def refused(folder: Path) -> tuple[Path, Samples]:
    """Twelve weights are not worth a Cast."""
    from hasten.data import Dataset

    data = Dataset(inputs={"x": np.zeros((4, 4), np.float32)})
    return linear_model(folder / "tiny.onnx"), data.subset(range(4))


def run(tmp_path: Path, skip: tuple[str, ...] = ()) -> Path:
    source, samples = subject(tmp_path)
    (tmp_path / "out").mkdir()
    return transforms.get("cast_bf16").run(source, tmp_path / "out", samples, {}, skip)[0]


def test_the_file_is_about_half_as_large(tmp_path: Path) -> None:
    after = open_model(run(tmp_path)).bytes_on_disk
    before = open_model(subject(tmp_path)[0]).bytes_on_disk
    assert 0.45 < after / before < 0.6


def test_a_skipped_weight_stays_f32(tmp_path: Path) -> None:
    kinds = {t.name: t.data_type for t in onnx.load(str(run(tmp_path, skip=("w1",)))).graph.initializer}
    assert kinds["w1"] == onnx.TensorProto.FLOAT
    assert kinds["w2/bf16"] == onnx.TensorProto.BFLOAT16


def test_engines_that_read_it_answer_alike(tmp_path: Path) -> None:
    path = run(tmp_path)
    tokens = np.random.default_rng(2).integers(0, 50, (3, 6))
    answers = [
        engines.get(name).load(path, Target(engine=name)).run({"tokens": tokens})["y"]
        for name in ("onnxruntime", "openvino")
    ]
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-3, atol=1e-3)
