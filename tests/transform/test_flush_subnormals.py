"""Subnormal weights become zero wherever they are stored; nothing else changes a bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.conftest import linear_model
from tests.transform.text_models import apply, normal, sample, write

from hasten.data.dataset import Samples
from hasten.model.onnx_file import all_weights
from hasten.transform.base import TransformFailed

TINY = np.float32(1e-39)


def weights(*places: int) -> np.ndarray:
    values = normal(8, 8)
    values.reshape(-1)[list(places)] = TINY
    return values


def subject(folder: Path) -> tuple[Path, Samples]:
    text = "(float[N, 8] x) => (float[N, 8] y) { h = MatMul(x, W) y = Add(h, b) }"
    return write(folder / "model.onnx", text, {"W": weights(3, 9), "b": normal(8)}), sample(x=(8,))


def refused(folder: Path) -> tuple[Path, Samples]:
    return linear_model(folder / "model.onnx"), sample(x=(4,))


def subnormals(path: Path) -> int:
    arrays = [numpy_helper.to_array(tensor) for tensor in all_weights(onnx.load(str(path)).graph)]
    return sum(
        int(np.count_nonzero((array != 0) & (np.abs(array) < np.finfo(array.dtype).tiny)))
        for array in arrays
        if array.dtype.kind == "f"
    )


def test_subnormal_initializers_become_zero_and_all_else_stays(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    model, applied = apply("flush_subnormals", source, samples)
    assert (subnormals(source), subnormals(model)) == (2, 0)
    assert applied.notes == ("2 subnormal weights in 1 tensors became zero.",)
    before, after = (onnx.load(str(path)).graph.initializer for path in (source, model))
    kept = weights(3, 9)
    kept.reshape(-1)[[3, 9]] = 0
    np.testing.assert_array_equal(numpy_helper.to_array(after[0]), kept)
    assert after[1] == before[1]


def test_constants_inside_subgraphs_are_reached(tmp_path: Path) -> None:
    text = (
        "(float[N, 8] x, bool[N] f) => (float[N, 8] y) { i = Constant <value = int64 {0}> () c = Gather(f, i) "
        "y = If (c) <then_branch = t () => (float[N, 8] p) { k = Constant <value = float[2] {1e-40, 1.0}> () "
        "s = ReduceSum <keepdims = 0> (k) p = Mul(x, s) }, else_branch = e () => (float[N, 8] q) { q = Relu(x) }> }"
    )
    source = write(tmp_path / "model.onnx", text)
    model, _ = apply("flush_subnormals", source, sample(x=(8,), f=np.array([True, False, True, True])))
    assert (subnormals(source), subnormals(model)) == (1, 0)


def test_half_precision_is_flushed_only_on_request(tmp_path: Path) -> None:
    values = normal(8, 8).astype(np.float16)
    values[0, 0] = 1e-6
    text = "(float16[N, 8] x) => (float16[N, 8] y) { y = MatMul(x, W) }"
    source = write(tmp_path / "model.onnx", text, {"W": values})
    samples = sample(x=normal(4, 8).astype(np.float16))
    with pytest.raises(TransformFailed, match="no subnormal weights"):
        apply("flush_subnormals", source, samples)
    (tmp_path / "model-flush_subnormals").rmdir()
    assert subnormals(apply("flush_subnormals", source, samples, {"half": True})[0]) == 0


def test_scales_of_quantization_are_left_alone(tmp_path: Path) -> None:
    text = "(float[N, 8] x) => (float[N, 8] y) { w = DequantizeLinear <axis = 0> (q, s) y = MatMul(x, w) }"
    scales = np.array([TINY, *[0.1] * 7], np.float32)
    source = write(tmp_path / "model.onnx", text, {"q": np.ones((8, 8), np.int8), "s": scales})
    with pytest.raises(TransformFailed, match="no subnormal weights"):
        apply("flush_subnormals", source, sample(x=(8,)))
