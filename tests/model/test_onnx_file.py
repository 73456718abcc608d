"""Opening models: what is wrong with a file is said, and nothing in it is run."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hasten.errors import ModelError
from hasten.model.onnx_file import open_onnx

Make = Callable[..., Path]


def test_the_signature_is_read_without_running(make_linear: Make) -> None:
    model = open_onnx(make_linear())
    assert [str(spec) for spec in (*model.signature.inputs, *model.signature.outputs)] == [
        "x: FP32[batch, 4]",
        "y: FP32[batch, 3]",
    ]
    assert model.parameters() == 15


def test_weights_in_constant_nodes_are_counted_too(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.ones((4, 3), np.float32))
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["W"], value=weights), helper.make_node("MatMul", ["x", "W"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8), tmp_path / "c.onnx")
    assert open_onnx(tmp_path / "c.onnx").parameters() == 12


@pytest.mark.parametrize("cut", [1, 10, 100, 0.5, 0.99])
def test_a_truncated_model_is_named(make_linear: Make, cut: float) -> None:
    path = make_linear()
    raw = path.read_bytes()
    path.write_bytes(raw[: int(cut * len(raw)) if cut < 1 else int(cut)])
    with pytest.raises(ModelError, match=r"linear\.onnx"):
        open_onnx(path)


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("data.pkl", b"x")
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\x80\x04\x95pickle", "pickle"),
        (archive(), "zip archive"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"\x1c\x00\x00\x00TFL3", "TFLite"),
        (b"hello, world", "ONNX"),
    ],
)
def test_a_foreign_file_is_told_what_it_is(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=words):
        open_onnx(path)


@pytest.mark.parametrize("place", ["../secret.bin", "/etc/passwd", "sub/../../secret.bin"])
def test_external_weights_outside_the_folder_are_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(48))
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    tensor = numpy_helper.from_array(np.ones((4, 3), np.float32), "W")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [tensor],
    )
    (home / "m.onnx").write_bytes(helper.make_model(graph, ir_version=8).SerializeToString())
    with pytest.raises(ModelError, match="outside the model's folder"):
        open_onnx(home / "m.onnx")


def test_operators_of_an_unknown_domain_are_refused_by_name(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Magic", ["x"], ["y"], domain="evil.corp")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("evil.corp", 1)]
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())
    with pytest.raises(ModelError, match=r"evil\.corp"):
        open_onnx(tmp_path / "m.onnx")


def test_a_folder_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a folder"):
        open_onnx(tmp_path)
    with pytest.raises(ModelError, match="does not exist"):
        open_onnx(tmp_path / "none.onnx")
