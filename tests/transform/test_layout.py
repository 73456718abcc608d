"""Transposes go where fewer of them do, and the answers stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.conftest import linear_model
from tests.transform.text_models import apply, normal, operators, sample, write

from hasten.data.dataset import Samples
from hasten.transform.base import TransformFailed

IN, OUT = "Transpose <perm = [0, 3, 1, 2]>", "Transpose <perm = [0, 2, 3, 1]>"
CONV = "Conv <pads = [1, 1, 1, 1]>"
HEAD = "(float[N, 6, 6, 4] x) => (float[A, B, C, D] y)"
WEIGHTS = {
    "K": normal(4, 4, 3, 3), "bias": normal(4), "slope": normal(1, 1, 4), "pads": np.array([0, 1, 0, 0, 0, 0, 2, 0]),
    "start": np.array([1]), "end": np.array([3]), "axis": np.array([3]), "half": np.array([2, 2]),
}  # fmt: skip


def images() -> Samples:
    return sample(x=(6, 6, 4))


def model(folder: Path, body: str, head: str = HEAD, **weights: np.ndarray) -> Path:
    known = WEIGHTS | weights
    return write(folder / "model.onnx", f"{head} {{ {body} }}", {k: v for k, v in known.items() if k in body})


def conv(name: str, source: str) -> str:
    return f"{name}t = {IN} ({source}) {name}c = {CONV} ({name}t, K) {name} = {OUT} ({name}c) "


def subject(folder: Path) -> tuple[Path, Samples]:
    """Channels-last convolutions with a residual, as exporters write them."""
    body = (
        conv("a", "x")
        + "b = Add(a, bias) r = Relu(b) "
        + conv("d", "r")
        + "e = Add(d, r) f = Sigmoid(e) "
        + conv("y", "f")
    )
    return model(folder, body), images()


def refused(folder: Path) -> tuple[Path, Samples]:
    return linear_model(folder / "model.onnx"), sample(x=(4,))


def test_only_the_transposes_at_the_ends_of_a_network_are_left(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    assert operators(source)["Transpose"] == 6
    assert operators(apply("layout", source, samples)[0])["Transpose"] == 2


def test_a_pair_that_cancels_disappears(tmp_path: Path) -> None:
    source = model(tmp_path, f"a = {IN} (x) b = {OUT} (a) y = Relu(b)")
    assert operators(apply("layout", source, images())[0]) == {"Relu": 1}


def test_two_transposes_in_a_row_become_one(tmp_path: Path) -> None:
    source = model(tmp_path, f"a = {IN} (x) y = Transpose <perm = [1, 0, 2, 3]> (a)")
    assert operators(apply("layout", source, images())[0]) == {"Transpose": 1}


@pytest.mark.parametrize(
    "between",
    [
        "b = Concat <axis = -1> (a, a)",
        "b = Softmax <axis = 3> (a)",
        "b = ReduceMax <axes = [1, 2]> (a)",
        "b = Pad (a, pads)",
        "b = Slice (a, start, end, axis)",
        "p, q = Split <axis = 3> (a, half) b = Mul(p, q)",
        "g = Mul(a, slope) k = Greater(a, g) b = Where(k, a, g)",
        "b = PRelu(a, slope)",
        "b = LeakyRelu <alpha = 0.1> (a)",
    ],
)
def test_a_node_between_a_pair_is_written_for_the_other_layout(tmp_path: Path, between: str) -> None:
    head = "(float[N, 4, 6, 6] x) => (float[A, B, C, D] y)"
    source = model(tmp_path, f"a = {OUT} (x) {between} y = {IN} (b)", head)
    moved, applied = apply("layout", source, sample(x=(4, 6, 6)))
    assert operators(moved)["Transpose"] == 0
    assert applied.error is not None and applied.error < 1e-6


def test_a_tensor_that_is_an_output_keeps_its_name_and_layout(tmp_path: Path) -> None:
    head = "(float[N, 6, 6, 4] x) => (float[A, B, C, D] y, float[E, F, G, H] r)"
    source = model(tmp_path, conv("a", "x") + "r = Relu(a) s = Sigmoid(r) " + conv("y", "s"), head)
    assert operators(apply("layout", source, images())[0])["Transpose"] == 3


def test_nothing_moves_where_that_saves_no_transpose(tmp_path: Path) -> None:
    source = model(tmp_path, f"a = {IN} (x) y = Relu(a)")
    with pytest.raises(TransformFailed, match="no transpose of the model can be saved"):
        apply("layout", source, images())


def test_a_matrix_product_takes_its_input_transposed(tmp_path: Path) -> None:
    head = "(float[N, 4] x) => (float[3, N] y)"
    source = model(tmp_path, "t = Transpose <perm = [1, 0]> (x) y = Gemm(W, t)", head, W=normal(3, 4))
    assert operators(apply("layout", source, sample(x=(4,)))[0]) == {"Gemm": 1}


def test_a_transpose_that_moves_no_data_becomes_a_reshape(tmp_path: Path) -> None:
    head = "(float[N, 1, 4] x) => (float[N, 4, 1] y)"
    source = model(tmp_path, "t = Transpose <perm = [0, 2, 1]> (x) y = Relu(t)", head)
    assert operators(apply("layout", source, sample(x=(1, 4)))[0]) == {"Reshape": 1, "Relu": 1}


def test_a_transpose_that_is_skipped_stays(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    _, all_of_them = apply("layout", source, samples)
    (tmp_path / "again").mkdir()
    again, _ = subject(tmp_path / "again")
    moved, applied = apply("layout", again, samples, skip=["Transpose2"])
    assert [item.site for item in applied.skipped] == ["Transpose2"]
    assert operators(moved)["Transpose"] > all_of_them.operators_after["Transpose"]
