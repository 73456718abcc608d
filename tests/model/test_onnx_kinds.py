"""ONNX files of every age and kind: opened where an engine can run them, else refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.model.onnx_models import COLUMNS, ROWS, WEIGHTS, save

from hasten.engine.onnxruntime import OnnxRuntime
from hasten.errors import ModelError
from hasten.model.onnx_file import open_onnx
from hasten.spec.target import Target

NEWEST = onnx.defs.onnx_opset_version()
INSIDE = numpy_helper.from_array(WEIGHTS, "W")
FLOAT = TensorProto.FLOAT


def write(path: Path, *values: onnx.ValueInfoProto, output: onnx.ValueInfoProto | None = None) -> Path:
    """Write y = x, with these inputs."""
    graph = helper.make_graph(
        [helper.make_node("Identity", [values[0].name], ["y"])], "g", list(values),
        [output or helper.make_tensor_value_info("y", FLOAT, ["n"])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 21, NEWEST])
def test_models_from_opset_9_to_the_newest_are_opened_and_run(tmp_path: Path, opset: int) -> None:
    model = open_onnx(save(tmp_path / "m.onnx", INSIDE, opset=opset))
    assert model.opset == opset
    answer = OnnxRuntime().load(model.path, Target(engine="onnxruntime")).run({"x": np.eye(ROWS, dtype=np.float32)})
    np.testing.assert_allclose(answer["y"], WEIGHTS)


@pytest.mark.parametrize("opset", [1, 7, 8])
def test_older_opsets_are_refused_with_how_to_raise_them(tmp_path: Path, opset: int) -> None:
    with pytest.raises(ModelError, match=rf"operators of version {opset}; hasten opens 9") as caught:
        open_onnx(save(tmp_path / "m.onnx", INSIDE, opset=opset))
    assert "convert_version" in caught.value.remedy


def test_a_model_that_states_no_opset_is_as_old_as_its_format(tmp_path: Path) -> None:
    model = onnx.load(str(save(tmp_path / "m.onnx", INSIDE)))
    model.ir_version = 2
    del model.opset_import[:]
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="operators of version 1;"):
        open_onnx(tmp_path / "m.onnx")


def test_newer_models_than_the_installed_onnx_are_told_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="newer than the ONNX of this machine") as caught:
        open_onnx(save(tmp_path / "m.onnx", INSIDE, opset=NEWEST + 1))
    assert "pip install" in caught.value.remedy
    model = onnx.load(str(save(tmp_path / "m.onnx", INSIDE)))
    model.ir_version = onnx.IR_VERSION + 1
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="newer than the ONNX of this machine"):
        open_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (helper.make_tensor_sequence_value_info("x", FLOAT, ["n"]), "input 'x' is no plain tensor .sequence"),
        (
            helper.make_value_info("x", helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, ["n"]))),
            "input 'x' is no plain tensor .optional",
        ),
        (helper.make_sparse_tensor_value_info("x", FLOAT, ["n"]), "input 'x' is no plain tensor .sparse tensor"),
        (helper.make_tensor_value_info("x", TensorProto.COMPLEX64, ["n"]), "tensor of COMPLEX64"),
        (helper.make_tensor_value_info("x", TensorProto.INT4, ["n"]), "tensor of INT4"),
        (helper.make_tensor_value_info("x", 999, ["n"]), "tensor of type 999"),
        (helper.make_tensor_value_info("x", FLOAT, None), "tensor of unknown rank"),
        (onnx.ValueInfoProto(name="x"), "input 'x' is no plain tensor .no type"),
    ],
)
def test_inputs_that_are_no_plain_tensors_are_named(tmp_path: Path, value: onnx.ValueInfoProto, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        open_onnx(write(tmp_path / "m.onnx", value))


def test_an_output_that_is_no_plain_tensor_is_named(tmp_path: Path) -> None:
    output = helper.make_tensor_sequence_value_info("y", FLOAT, ["n"])
    with pytest.raises(ModelError, match=r"output 'y' is no plain tensor .sequence"):
        open_onnx(write(tmp_path / "m.onnx", helper.make_tensor_value_info("x", FLOAT, ["n"]), output=output))


@pytest.mark.parametrize(
    ("dims", "expected"),
    [([0, 3], (0, 3)), ([-1, 3], ("?", 3)), ([None, 3], ("?", 3)), (["n", 3], ("n", 3)), ([], ())],
)
def test_dimensions_mean_what_the_runtime_takes_them_for(
    tmp_path: Path, dims: list[int | str | None], expected: tuple[int | str, ...]
) -> None:
    x, y = (helper.make_tensor_value_info(name, FLOAT, dims) for name in "xy")
    model = open_onnx(write(tmp_path / "m.onnx", x, output=y))
    assert model.signature.inputs[0].shape == expected
    assert OnnxRuntime().load(model.path, Target(engine="onnxruntime")).signature == model.signature


def test_the_models_own_functions_are_opened_counted_and_run(tmp_path: Path) -> None:
    body = [helper.make_node("Constant", [], ["w"], value=INSIDE), helper.make_node("MatMul", ["a", "w"], ["b"])]
    model = onnx.load(str(save(tmp_path / "m.onnx", nodes=[helper.make_node("Own", ["x"], ["y"], domain="my.own")])))
    model.functions.append(helper.make_function("my.own", "Own", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    model.opset_import.add(domain="my.own", version=1)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    opened = open_onnx(tmp_path / "m.onnx")
    assert opened.parameters() == ROWS * COLUMNS
    answer = OnnxRuntime().load(opened.path, Target(engine="onnxruntime")).run({"x": np.eye(ROWS, dtype=np.float32)})
    np.testing.assert_allclose(answer["y"], WEIGHTS)


def _outside(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    return [node]


def _in_a_branch(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    branch = helper.make_graph([node], "branch", [], [helper.make_tensor_value_info("y", FLOAT, ["n", 3])])
    yes = helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True)))
    return [yes, helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)]


@pytest.mark.parametrize("place", [_outside, _in_a_branch])
@pytest.mark.parametrize(
    ("kind", "domain", "words"),
    [
        ("Magic", "evil.corp", "'Magic' of the domain 'evil.corp'"),
        ("Conv", "com.microsoft.nchwc", "optimized by ONNX Runtime for one processor"),
        ("EPContext", "com.microsoft", "compiled for one accelerator"),
    ],
)
def test_operators_that_need_more_than_the_standard_are_named(
    tmp_path: Path, place: Callable[[onnx.NodeProto], list[onnx.NodeProto]], kind: str, domain: str, words: str
) -> None:
    node = helper.make_node(kind, ["x"], ["y"], domain=domain)
    with pytest.raises(ModelError, match=words):
        open_onnx(save(tmp_path / "m.onnx", nodes=place(node)))


def test_a_foreign_domain_that_no_node_uses_does_no_harm(tmp_path: Path) -> None:
    model = onnx.load(str(save(tmp_path / "m.onnx", INSIDE)))
    model.opset_import.add(domain="evil.corp", version=1)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert open_onnx(tmp_path / "m.onnx").opset == 17


def test_flipped_bits_are_refused_or_harmless_and_never_crash(tmp_path: Path) -> None:
    raw = save(tmp_path / "m.onnx", INSIDE).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(raw)
        damaged[int(rng.integers(len(raw)))] ^= 1 << int(rng.integers(8))
        (tmp_path / "damaged.onnx").write_bytes(damaged)
        try:
            open_onnx(tmp_path / "damaged.onnx")
        except ModelError:
            refused += 1
    assert refused > 0
