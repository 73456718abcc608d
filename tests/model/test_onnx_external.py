"""External weights: whole and beside the model they are read; whatever reaches elsewhere is refused."""

from __future__ import annotations

import hashlib
import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.model.onnx_models import COLUMNS, ROWS, WEIGHTS, external, save, weights_file

from hasten.engine.onnxruntime import OnnxRuntime
from hasten.errors import ModelError
from hasten.model.onnx_external import stored_bytes
from hasten.model.onnx_file import open_onnx, save_proto
from hasten.spec.target import Target


def test_weights_in_several_files_and_folders_belong_to_the_model(tmp_path: Path) -> None:
    weights_file(tmp_path / "a.bin")
    weights_file(tmp_path / "deep" / "er" / "b.bin")
    nodes = [
        helper.make_node("Add", ["W", "V"], ["U"]),
        helper.make_node("MatMul", ["x", "U"], ["y"]),
    ]
    tensors = external("a.bin"), external("deep/er/b.bin", "V", offset="0", length="48")
    model = open_onnx(save(tmp_path / "m.onnx", *tensors, nodes=nodes))
    names = [str(file.relative_to(tmp_path)) for file in model.files()]
    assert names == ["m.onnx", "a.bin", "deep/er/b.bin"]
    assert model.bytes_on_disk == sum(file.stat().st_size for file in model.files())
    x = np.eye(ROWS, dtype=np.float32)
    answer = OnnxRuntime().load(model.path, Target(engine="onnxruntime")).run({"x": x})
    np.testing.assert_allclose(answer["y"], 2 * WEIGHTS)


def test_the_digest_covers_external_weights(tmp_path: Path) -> None:
    weights = weights_file(tmp_path / "w.bin")
    path = save(tmp_path / "m.onnx", external("w.bin"))
    before = open_onnx(path).digest
    assert open_onnx(path).digest == before
    weights.write_bytes(bytes(48))
    assert open_onnx(path).digest != before
    whole = hashlib.sha256(path.read_bytes())
    whole.update(hashlib.sha256(bytes(48)).digest())
    assert open_onnx(path).digest == whole.hexdigest()


def test_three_gigabytes_of_weights_are_opened_without_reading_them(tmp_path: Path) -> None:
    tensor = external("w.bin", offset="4096", length=str(3 * 2**30))
    tensor.dims[:] = [ROWS * 2**14, COLUMNS * 2**12]
    with (tmp_path / "w.bin").open("wb") as stream:
        stream.truncate(4096 + 3 * 2**30)
    save(tmp_path / "m.onnx", tensor)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = open_onnx(tmp_path / "m.onnx")
    assert model.parameters() == 3 * 2**28
    assert model.bytes_on_disk > 3 * 2**30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 2**10


_Y = helper.make_node("MatMul", ["x", "W"], ["y"])


def _initializer(tensor: TensorProto) -> onnx.ModelProto:
    return _model([_Y], initializer=[tensor])


def _constant(tensor: TensorProto) -> onnx.ModelProto:
    return _model([helper.make_node("Constant", [], ["W"], value=tensor), _Y])


def _list_of_tensors(tensor: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["W"])
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSORS).tensors.append(tensor)
    return _model([node, _Y])


def _sparse_values(tensor: TensorProto) -> onnx.ModelProto:
    return _model([_Y], sparse=helper.make_sparse_tensor(tensor, _indices(), [12]))


def _sparse_indices(tensor: TensorProto) -> onnx.ModelProto:
    return _model([_Y], sparse=helper.make_sparse_tensor(numpy_helper.from_array(WEIGHTS.ravel(), "W"), tensor, [12]))


def _sparse_attribute(tensor: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["W"])
    attribute = node.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR)
    attribute.sparse_tensor.values.CopyFrom(tensor)
    return _model([node, _Y])


def _subgraph(tensor: TensorProto) -> onnx.ModelProto:
    value = [helper.make_tensor_value_info("w", TensorProto.FLOAT, [ROWS, COLUMNS])]
    inner = helper.make_graph([helper.make_node("Constant", [], ["w"], value=tensor)], "inner", [], value)
    yes = numpy_helper.from_array(np.array(True), "yes")
    return _model([helper.make_node("If", ["yes"], ["W"], then_branch=inner, else_branch=inner), _Y], initializer=[yes])


def _function(tensor: TensorProto) -> onnx.ModelProto:
    model = _model([helper.make_node("Own", [], ["W"], domain="mine"), _Y])
    body = [helper.make_node("Constant", [], ["w"], value=tensor)]
    model.functions.append(helper.make_function("mine", "Own", [], ["w"], body, [helper.make_opsetid("", 17)]))
    model.opset_import.add(domain="mine", version=1)
    return model


def _default_of_function(tensor: TensorProto) -> onnx.ModelProto:
    model = _initializer(numpy_helper.from_array(WEIGHTS, "W"))
    model.functions.add(name="Own", domain="mine").attribute_proto.add(name="a", type=4).t.CopyFrom(tensor)
    return model


def _training(tensor: TensorProto) -> onnx.ModelProto:
    model = _initializer(numpy_helper.from_array(WEIGHTS, "W"))
    model.training_info.add().algorithm.initializer.append(tensor)
    return model


def _indices() -> TensorProto:
    return numpy_helper.from_array(np.arange(12), "i")


def _model(
    nodes: list[onnx.NodeProto],
    initializer: list[TensorProto] | None = None,
    sparse: onnx.SparseTensorProto | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", ROWS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", COLUMNS])],
        initializer or [],
    )
    if sparse is not None:
        graph.sparse_initializer.append(sparse)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    "hide",
    [
        _initializer, _constant, _list_of_tensors, _sparse_values, _sparse_indices, _sparse_attribute, _subgraph,
        _function, _default_of_function, _training,
    ],
    ids=lambda hide: hide.__name__.strip("_"),
)  # fmt: skip
def test_wherever_a_tensor_hides_it_cannot_reach_outside(
    tmp_path: Path, hide: Callable[[TensorProto], onnx.ModelProto]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    weights_file(tmp_path / "secret.bin")
    (home / "m.onnx").write_bytes(hide(external("../secret.bin")).SerializeToString())
    with pytest.raises(ModelError, match="outside the model's folder"):
        open_onnx(home / "m.onnx")


@pytest.mark.parametrize(
    "place",
    [
        "../secret.bin", "sub/../../secret.bin", "sub/../w.bin", "/etc/passwd", "/proc/self/environ", "", ".", "..",
        "..\\secret.bin", "C:\\secret.bin", "C:secret.bin", "\\\\host\\share\\w.bin", "w.bin\0.txt",
        "*/_ORT_MEM_ADDR_/*",
    ],
)  # fmt: skip
def test_places_outside_the_folder_are_refused_however_they_are_written(tmp_path: Path, place: str) -> None:
    home = tmp_path / "home"
    weights_file(tmp_path / "secret.bin")
    weights_file(home / "w.bin")
    weights_file(home / "*" / "_ORT_MEM_ADDR_" / "*")
    with pytest.raises(ModelError, match="outside the model's folder"):
        open_onnx(save(home / "m.onnx", external(place)))


def test_weights_behind_a_link_are_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    secret = weights_file(tmp_path / "there" / "secret.bin")
    (home / "soft.bin").symlink_to(secret)
    (home / "folder").symlink_to(secret.parent)
    os.link(secret, home / "hard.bin")
    for place, words in (("soft.bin", "link 'soft"), ("folder/secret.bin", "link 'folder'"), ("hard.bin", "hard link")):
        with pytest.raises(ModelError, match=words):
            open_onnx(save(home / "m.onnx", external(place)))


def test_weights_in_no_regular_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for place in ("folder", "pipe"):
        with pytest.raises(ModelError, match="no regular file"):
            open_onnx(save(tmp_path / "m.onnx", external(place)))


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"sub/w\.bin are missing"):
        open_onnx(save(tmp_path / "m.onnx", external("sub/w.bin")))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"offset": "-1"}, "negative"),
        ({"length": "-48"}, "negative"),
        ({"offset": "0x10"}, "negative or impossible"),
        ({"offset": " 4"}, "impossible"),
        ({"offset": "٣"}, "impossible"),
        ({"offset": str(2**64)}, "impossible"),
        ({"offset": str(2**59)}, "which has 48"),
        ({"offset": "1"}, "end at byte 49 of w.bin, which has 48"),
        ({"length": "47"}, "need 48 bytes and state 47"),
        ({"length": str(2**59)}, "need 48 bytes"),
        ({"__class__": "evil"}, "unknown word '__class__'"),
        ({"basepath": "/etc"}, "unknown word 'basepath'"),
    ],
)
def test_lying_sizes_and_unknown_words_are_refused(tmp_path: Path, words: dict[str, str], reason: str) -> None:
    weights_file(tmp_path / "w.bin")
    with pytest.raises(ModelError, match=reason):
        open_onnx(save(tmp_path / "m.onnx", external("w.bin", **words)))


def test_a_place_given_twice_is_refused(tmp_path: Path) -> None:
    weights_file(tmp_path / "w.bin")
    tensor = external("w.bin")
    tensor.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(ModelError, match="a word twice"):
        open_onnx(save(tmp_path / "m.onnx", tensor))


@pytest.mark.parametrize("dims", [[-4, -3], [2**40, 2**40]])
def test_impossible_dimensions_of_external_weights_are_refused(tmp_path: Path, dims: list[int]) -> None:
    weights_file(tmp_path / "w.bin")
    tensor = external("w.bin")
    tensor.dims[:] = dims
    with pytest.raises(ModelError, match="'W'"):
        open_onnx(save(tmp_path / "m.onnx", tensor))


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.UNDEFINED, 999])
def test_external_weights_without_a_size_are_refused(tmp_path: Path, kind: int) -> None:
    weights_file(tmp_path / "w.bin")
    tensor = external("w.bin")
    tensor.data_type = kind
    with pytest.raises(ModelError, match="'W'"):
        open_onnx(save(tmp_path / "m.onnx", tensor))


@pytest.mark.parametrize(
    ("kind", "dims", "size"),
    [(TensorProto.FLOAT, [3, 5], 60), (TensorProto.INT4, [3, 3], 5), (TensorProto.BOOL, [7], 7),
     (TensorProto.DOUBLE, [], 8), (TensorProto.BFLOAT16, [0, 9], 0), (TensorProto.STRING, [9], 0)],
)  # fmt: skip
def test_the_size_of_weights_follows_their_type(kind: int, dims: list[int], size: int) -> None:
    assert stored_bytes(TensorProto(data_type=kind, dims=dims)) == size


def test_too_large_weights_are_written_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hasten.model.onnx_file._ONE_FILE", 2000)
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(ROWS, 80)).astype(np.float32) for _ in range(2))
    nodes = [
        helper.make_node("Constant", [], ["W"], value=numpy_helper.from_array(first, "W")),
        helper.make_node("Add", ["W", "V"], ["U"]),
        helper.make_node("MatMul", ["x", "U"], ["h"]),
        helper.make_node("Slice", ["h", "zero", "three", "one"], ["y"]),
    ]
    small = [numpy_helper.from_array(np.array([v]), n) for n, v in (("zero", 0), ("three", COLUMNS), ("one", 1))]
    source = save(tmp_path / "source.onnx", numpy_helper.from_array(second, "V"), *small, nodes=nodes)
    (tmp_path / "m.onnx.data").write_bytes(b"left over")
    save_proto(onnx.load_model(str(source)), tmp_path / "m.onnx")
    model = open_onnx(tmp_path / "m.onnx")
    assert [file.name for file in model.files()] == ["m.onnx", "m.onnx.data"]
    assert (tmp_path / "m.onnx.data").stat().st_size == first.nbytes + second.nbytes
    x = {"x": rng.normal(size=(2, ROWS)).astype(np.float32)}
    answers = [OnnxRuntime().load(p, Target(engine="onnxruntime")).run(x)["y"] for p in (source, model.path)]
    np.testing.assert_array_equal(answers[0], answers[1])
