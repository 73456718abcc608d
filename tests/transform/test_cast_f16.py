"""f16 inside, f32 outside; nodes that overflow are found and left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from tests.transform.small_models import images, quantized, save, small_convolutions

from hasten.data import Dataset
from hasten.data.dataset import Samples
from hasten.engine.base import engines
from hasten.spec.target import Target
from hasten.transform.base import transforms


def subject(folder: Path) -> tuple[Path, Samples]:
    return small_convolutions(folder / "convolutions.onnx"), images()


refused = quantized


def overflowing(folder: Path) -> tuple[Path, Samples]:
    """x · 1000, squared, and its root again: the square is beyond 65504 although the answer is small."""
    spec = helper.make_tensor_value_info
    path = save(
        folder / "overflow.onnx",
        [
            helper.make_node("Mul", ["x", "k"], ["big"], name="scale"),
            helper.make_node("Mul", ["big", "big"], ["square"], name="square"),
            helper.make_node("Sqrt", ["square"], ["root"], name="root"),
            helper.make_node("Mul", ["root", "w"], ["y"], name="weigh"),
        ],
        [spec("x", TensorProto.FLOAT, ["n", 4])],
        [spec("y", TensorProto.FLOAT, ["n", 4])],
        {"k": np.array([1000], np.float32), "w": np.array([0.001, 0.002, 0.003, 0.004], np.float32)},
    )
    values = np.random.default_rng(0).uniform(0.5, 2, (8, 4)).astype(np.float32)
    return path, Dataset(inputs={"x": values}).subset(range(8))


def test_weights_are_f16_and_the_interface_is_not(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    (tmp_path / "out").mkdir()
    path, applied = transforms.get("cast_f16").run(source, tmp_path / "out", samples, {})
    model = onnx.load(str(path))
    assert {t.data_type for t in model.graph.initializer if len(t.dims) > 1} == {TensorProto.FLOAT16}
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert applied.error is not None
    assert applied.error < 0.01


def test_nodes_that_overflow_are_found_and_stay_in_f32(tmp_path: Path) -> None:
    source, samples = overflowing(tmp_path)
    (tmp_path / "out").mkdir()
    _, applied = transforms.get("cast_f16").run(source, tmp_path / "out", samples, {})
    [note] = applied.notes
    assert note == "Numbers near or beyond 65504 keep in f32: square, root."


def test_operators_named_by_the_option_stay_in_f32(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    (tmp_path / "out").mkdir()
    path, applied = transforms.get("cast_f16").run(source, tmp_path / "out", samples, {"stay": "Gemm"})
    kinds = {t.name: t.data_type for t in onnx.load(str(path)).graph.initializer}
    assert kinds["w3"] == TensorProto.FLOAT
    assert kinds["w1"] == TensorProto.FLOAT16
    assert applied.sites == 5


def test_openvino_calls_inputs_and_outputs_as_the_model_does(tmp_path: Path) -> None:
    """It folds the casts at both ends away when it compiles, and then knows either tensor by two names."""
    source, samples = subject(tmp_path)
    (tmp_path / "out").mkdir()
    path, _ = transforms.get("cast_f16").run(source, tmp_path / "out", samples, {})
    session = engines.get("openvino").load(path, Target(engine="openvino"))
    try:
        assert [spec.name for spec in session.signature.inputs] == ["image"]
        assert [spec.name for spec in session.signature.outputs] == ["y"]
    finally:
        session.close()
