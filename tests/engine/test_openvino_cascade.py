"""A cascade: close calls are computed again in f32, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.engine.base import engines
from hasten.engine.openvino_cascade import Cascade
from hasten.errors import EngineLoadError
from hasten.spec.target import Runtime, Target
from hasten.spec.tensor import TensorSpec

Make = Callable[..., Path]
NARROW = [p for p in ("bf16", "f16") if p in engines.get("openvino").probe().device("CPU").precisions]  # type: ignore[union-attr]


def load(path: Path, precision: Any, below: float = 0.0) -> Any:
    target = Target(engine="openvino", threads=1, precision=precision, runtime=Runtime(cascade_below=below))
    return engines.get("openvino").load(path, target)


def save(path: Path, text: str) -> Path:
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {text}'), str(path))
    return path


def scores(path: Path, shape: str = "n, 3", axes: str = "n, 8") -> Path:
    """Products with weights whose values no narrow format holds exactly."""
    values = ", ".join(f"{np.sin(at + 1):.6f}" for at in range(24))
    return save(
        path,
        f"(float[{axes}] x) => (float[{shape}] y) <float[8, 3] w = {{{values}}}> {{ y = MatMul(x, w) }}",
    )


def margins(rows: Any) -> Any:
    two = np.sort(rows, axis=-1)
    return (two[..., -1] - two[..., -2]).reshape(len(rows), -1).min(axis=1)


@pytest.mark.skipif(not NARROW, reason="this processor computes in f32 only")
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 9), share=st.floats(0, 1))
@settings(max_examples=15, deadline=None)
def test_close_calls_are_those_of_f32_and_all_others_those_of_the_narrow_format(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, share: float
) -> None:
    path = scores(tmp_path_factory.mktemp("cascade") / "scores.onnx")
    x = np.random.default_rng(seed).normal(size=(rows, 8)).astype(np.float32)
    narrow, full = (load(path, precision).run({"x": x})["y"] for precision in (NARROW[0], "f32"))
    limit = float(np.quantile(margins(narrow), share)) + 1e-6
    found = load(path, NARROW[0], limit).run({"x": x})["y"]
    close = margins(narrow) < limit
    assert close.any()
    np.testing.assert_allclose(found[close], full[close], rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(found[~close], narrow[~close])


@pytest.mark.skipif(not NARROW, reason="this processor computes in f32 only")
@pytest.mark.parametrize(("shape", "axes"), [("n, 5, 3", "n, 5, 8"), ("2, 3", "2, 8"), ("1, 5, 3", "1, 5, 8")])
def test_rows_of_many_positions_and_fixed_batches_are_settled_too(tmp_path: Path, shape: str, axes: str) -> None:
    path = scores(tmp_path / "scores.onnx", shape, axes)
    sizes = [2 if part == "n" else int(part) for part in axes.split(", ")]
    x = np.random.default_rng(0).normal(size=sizes).astype(np.float32)
    session = load(path, NARROW[0], 1e9)
    assert session.precision == NARROW[0]
    assert [spec.name for spec in session.signature.outputs] == ["y"]
    np.testing.assert_allclose(session.run({"x": x})["y"], load(path, "f32").run({"x": x})["y"], rtol=1e-6, atol=1e-7)


class Compiled:
    """A second graph that doubles, and remembers the shapes that it was given."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self._given = np.zeros(0)

    def create_infer_request(self) -> Compiled:
        return self

    def set_input_tensor(self, place: int, tensor: Any) -> None:
        self._given = np.array(tensor.data)

    def infer(self) -> Compiled:
        self.shapes.append(self._given.shape)
        return self

    def to_tuple(self) -> tuple[Any, ...]:
        return (self._given * 2,)


def settled(cascade: Cascade, x: Any, margins: Any) -> Any:
    answers = {"y": x.copy()}
    cascade.settle({0: x}, answers, np.array(margins))
    return answers["y"]


def cascade(compiled: Compiled, *, by_row: bool) -> Cascade:
    return Cascade(compiled, [TensorSpec(name="y", dtype="FP32", shape=("n", "m"))], 0.5, by_row=by_row, instances=1)


def rows(count: int, width: int = 2) -> Any:
    return np.arange(1.0, 1 + count * width, dtype=np.float32).reshape(count, width)


def test_a_shape_is_met_when_it_comes_first_although_no_call_is_close() -> None:
    compiled = Compiled()
    warm = cascade(compiled, by_row=True)
    for width in (2, 2, 3):
        np.testing.assert_array_equal(settled(warm, rows(4, width), [0.9] * 4), rows(4, width))
    assert compiled.shapes == [(1, 2), (1, 3)], "one row, once for each width"


def test_close_calls_are_run_one_by_one_whatever_their_number() -> None:
    compiled = Compiled()
    found = settled(cascade(compiled, by_row=True), rows(3), [0.1, 0.9, 0.2])
    np.testing.assert_array_equal(found, rows(3) * [[2], [1], [2]])
    assert set(compiled.shapes) == {(1, 2)}


def test_a_graph_of_whole_batches_settles_all_rows() -> None:
    compiled = Compiled()
    warm = cascade(compiled, by_row=False)
    np.testing.assert_array_equal(settled(warm, rows(3), [0.9, 0.9, 0.9]), rows(3))
    np.testing.assert_array_equal(settled(warm, rows(3), [0.9, 0.1, 0.9]), rows(3) * 2)
    assert compiled.shapes == [(3, 2), (3, 2)]


def test_a_batch_of_nothing_meets_nothing() -> None:
    compiled = Compiled()
    assert settled(cascade(compiled, by_row=True), np.zeros((0, 2), np.float32), []).shape == (0, 2)
    assert not compiled.shapes


def test_shapes_without_end_are_not_all_met_before_they_have_to_be() -> None:
    compiled = Compiled()
    warm = cascade(compiled, by_row=True)
    for width in range(1, 100):
        settled(warm, rows(1, width), [0.9])
    assert len(compiled.shapes) < 40


@pytest.mark.skipif("f16" not in NARROW, reason="this processor does not compute in f16")
def test_what_overflows_in_the_narrow_format_is_computed_again(tmp_path: Path) -> None:
    path = save(
        tmp_path / "large.onnx",
        "(float[n, 2] x) => (float[n, 2] y) <float[2, 2] w = {1e5, 0.0, 0.0, 1e5}> { y = MatMul(x, w) }",
    )
    x = np.array([[3.0, 2.0], [1.0, 4.0]], np.float32)
    found = load(path, "f16", 1e-6).run({"x": x})["y"]
    np.testing.assert_allclose(found, x * 1e5, rtol=1e-6)


@pytest.mark.skipif(not NARROW, reason="this processor computes in f32 only")
def test_outputs_without_scores_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "one.onnx", "(float[n, 1] x) => (float[n, 1] y) { y = Abs(x) }")
    with pytest.raises(EngineLoadError, match="holds no scores over two classes"):
        load(path, NARROW[0], 0.1)


def test_a_quantized_model_has_no_f32_to_fall_back_on(make_linear: Make) -> None:
    with pytest.raises(EngineLoadError, match="A model in int8 cannot compute rows again in f32"):
        load(make_linear(), "int8", 0.1)


def test_a_margin_below_zero_is_no_setting() -> None:
    import msgspec

    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"cascade_below": -1.0}, Runtime)
