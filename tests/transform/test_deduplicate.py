"""Equal constants become one, at every depth, and unequal ones stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.conftest import linear_model
from tests.transform.text_models import apply, normal, sample, write

from hasten.data.dataset import Samples
from hasten.model.open import open_model
from hasten.transform.base import TransformFailed

W = normal(8, 8)
CONSTANT = f"Constant <value = float[8, 8] {{{', '.join(repr(float(value)) for value in W.ravel())}}}> ()"


def subject(folder: Path) -> tuple[Path, Samples]:
    text = f"(float[N, 8] x) => (float[N, 8] y) {{ c = {CONSTANT} a = MatMul(x, W) b = MatMul(a, V) y = MatMul(b, c) }}"
    return write(folder / "model.onnx", text, {"W": W, "V": W}), sample(x=(8,))


def refused(folder: Path) -> tuple[Path, Samples]:
    return linear_model(folder / "model.onnx"), sample(x=(4,))


def test_initializers_and_constants_that_are_equal_become_one(tmp_path: Path) -> None:
    model, applied = apply("deduplicate", *subject(tmp_path))
    assert open_model(model).parameters() == 64
    assert applied.notes == ("2 constants were copies of others; 0.000512 MB saved.",)


def test_a_subgraph_reads_the_constant_around_it(tmp_path: Path) -> None:
    text = (
        f"(float[N, 8] x, bool[N] f) => (float[N, 8] y) {{ i = Constant <value = int64 {{0}}> () c = Gather(f, i) "
        f"h = MatMul(x, W) y = If (c) <then_branch = t () => (float[N, 8] p) {{ k = {CONSTANT} p = MatMul(h, k) }}, "
        "else_branch = e () => (float[N, 8] q) { q = Relu(h) }> }"
    )
    source = write(tmp_path / "model.onnx", text, {"W": W})
    model, _ = apply("deduplicate", source, sample(x=(8,), f=np.array([True, False, True, True])))
    assert open_model(model).parameters() == 64


def test_tensors_of_other_shape_or_type_or_one_bit_stay(tmp_path: Path) -> None:
    text = "(float[N, 8] x) => (float[N, 8] y) { a = MatMul(x, W) r = Reshape(V, s) b = MatMul(a, r) y = MatMul(b, U) }"
    nearly = W.copy()
    nearly[0, 0] = np.nextafter(nearly[0, 0], np.float32(9))
    flat = {"W": W, "V": W.reshape(-1), "U": nearly, "s": np.array([8, 8])}
    source = write(tmp_path / "model.onnx", text, flat)
    with pytest.raises(TransformFailed, match="no two constants of 64 bytes or more are equal"):
        apply("deduplicate", source, sample(x=(8,)))


def test_small_constants_are_merged_only_on_request(tmp_path: Path) -> None:
    text = "(float[N, 8] x) => (float[N, 8] y) { h = Mul(x, a) y = Add(h, b) }"
    source = write(tmp_path / "model.onnx", text, {"a": np.float32(2), "b": np.float32(2)})
    model, _ = apply("deduplicate", source, sample(x=(8,)), {"least_bytes": 4})
    assert len(onnx.load(str(model)).graph.initializer) == 1


def test_a_constant_that_is_an_output_keeps_its_name(tmp_path: Path) -> None:
    text = f"(float[N, 8] x) => (float[N, 8] y, float[8, 8] c) {{ c = {CONSTANT} a = MatMul(x, W) y = MatMul(a, V) }}"
    source = write(tmp_path / "model.onnx", text, {"W": W, "V": W})
    model, _ = apply("deduplicate", source, sample(x=(8,)))
    assert [value.name for value in open_model(model).signature.outputs] == ["y", "c"]
