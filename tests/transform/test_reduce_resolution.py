"""Pictures are made smaller inside the graph, and the network follows or the reason why it cannot is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hasten.data import Dataset
from hasten.data.dataset import Samples
from hasten.engine.base import engines
from hasten.spec.target import Target
from hasten.transform.base import TransformFailed, transforms
from hasten.transform.reduce_resolution import resizing_matrix

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
# A convolution of stride 2, pooling over the whole map as old exporters write it, and a flattening with the size in it.
CLASSIFIER = """ image (float[n, 3, 32, 32] x) => (float[n, 4] y) {
    c = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(x, K)
    r = Relu(c)
    p = AveragePool<kernel_shape = [16, 16]>(r)
    s = Constant<value = int64[2] {-1, 8}>()
    f = Reshape(p, s)
    y = MatMul(f, W)
}"""
# The picture in a row and back, as attention over pixels does: 256 = 16 x 16 is written into it.
ROUND_TRIP = """ image (float[1, 3, 32, 32] x) => (float[1, 8] y) {
    c = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(x, K)
    row = Constant<value = int64[3] {1, 8, 256}>()
    a = Reshape(c, row)
    b = Relu(a)
    map = Constant<value = int64[4] {1, 8, 16, 16}>()
    d = Reshape(b, map)
    y = ReduceMean<axes = [2, 3], keepdims = 0>(d)
}"""
LAST = """ image (float[n, 32, 32, 3] x) => (float[n, 8] y) {
    t = Transpose<perm = [0, 3, 1, 2]>(x)
    c = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(t, K)
    y = ReduceMean<axes = [2, 3], keepdims = 0>(c)
}"""
DENSE = """ image (float[n, 3, 32, 32] x) => (float[n, 5] y) {
    f = Flatten(x)
    y = Gemm(f, D)
}"""
MAP = """ image (float[n, 3, 32, 32] x) => (float[n, 8, 32, 32] y) {
    y = Conv<pads = [1, 1, 1, 1]>(x, K)
}"""
PYRAMID = """ image (float[n, 3, 32, 32] x) => (float[n, 8] y) {
    c = Conv<pads = [1, 1, 1, 1]>(x, K)
    m = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(c)
    none = Constant<value = float[0] {}>()
    size = Constant<value = int64[4] {1, 8, 32, 32}>()
    u = Resize<mode = "nearest">(m, none, none, size)
    a = Add(u, c)
    y = ReduceMean<axes = [2, 3], keepdims = 0>(a)
}"""


def write(path: Path, text: str) -> Path:
    model = onnx.parser.parse_model(HEAD + text)
    rng = np.random.default_rng(0)
    for name, shape in {"K": (8, 3, 3, 3), "W": (8, 4), "D": (3072, 5)}.items():
        if any(name in node.input for node in model.graph.node):
            array = (rng.normal(size=shape) / 8).astype(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return path


def pictures(*shape: int) -> Samples:
    """Smooth pictures, whose smaller versions look alike."""
    rng = np.random.default_rng(1)
    rows, columns = np.meshgrid(np.linspace(0, 3, shape[-1]), np.linspace(0, 3, shape[-1]), indexing="ij")
    phases = rng.uniform(0, 6, (4, 3, 1, 1))
    images = np.sin(rows + phases) * np.cos(columns * 0.5 + phases)
    return Dataset(inputs={"x": images.astype(np.float32)}).subset(range(4))


def channels_last(samples: Samples) -> Samples:
    images = np.stack([samples.inputs(index)["x"].transpose(1, 2, 0) for index in range(4)])
    return Dataset(inputs={"x": images}).subset(range(4))


def subject(folder: Path) -> tuple[Path, Samples]:
    return write(folder / "classifier.onnx", CLASSIFIER), pictures(3, 32, 32)


def refused(folder: Path) -> tuple[Path, Samples]:
    return write(folder / "map.onnx", MAP), pictures(3, 32, 32)


def run(source: Path, samples: Samples, tmp_path: Path, **options: Any) -> tuple[Path, Any]:
    (tmp_path / "out").mkdir()
    return transforms.get("reduce_resolution").run(source, tmp_path / "out", samples, options)


@pytest.mark.parametrize(("text", "channels"), [(CLASSIFIER, 1), (ROUND_TRIP, 1), (LAST, 3)])
def test_smooth_pictures_are_answered_almost_as_before(text: str, channels: int, tmp_path: Path) -> None:
    samples = pictures(3, 32, 32) if channels == 1 else channels_last(pictures(3, 32, 32))
    source = write(tmp_path / "model.onnx", text)
    path, applied = run(source, samples, tmp_path)
    assert applied.error is not None and applied.error < 0.1
    assert applied.notes == ("x is resized from 32x32 to 24x24 (height x width) inside the graph.",)
    shape = onnx.shape_inference.infer_shapes(onnx.load(str(path)))
    sizes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in shape.graph.value_info
    }
    assert sizes["c"][2:] == [12, 12]


def test_height_and_width_can_differ(tmp_path: Path) -> None:
    _, applied = run(*subject(tmp_path), tmp_path, size="16x24")
    assert applied.notes == ("x is resized from 32x32 to 16x24 (height x width) inside the graph.",)


def test_engines_agree_about_the_smaller_picture(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    path, _ = run(source, samples, tmp_path, size="20")
    answers: list[Any] = []
    for name in ("onnxruntime", "openvino"):
        session = engines.get(name).load(path, Target(engine=name))
        answers.append(session.run({"x": samples.inputs(0)["x"][None]})["y"])
        session.close()
    np.testing.assert_allclose(*answers, rtol=1e-3, atol=1e-5)


def test_the_filter_is_the_one_that_pictures_are_usually_shrunk_with() -> None:
    from PIL import Image

    picture = np.random.default_rng(0).uniform(size=(30, 40)).astype(np.float32)
    ours = resizing_matrix(30, 13) @ picture @ resizing_matrix(40, 22).T
    theirs = np.asarray(Image.fromarray(picture).resize((22, 13), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "options", "reason"),
    [
        (MAP, {}, r"the output 'y' would have shape \[1, 8, 24, 24\] instead of \[1, 8, 32, 32\]"),
        (DENSE, {}, "a dense layer over all positions: the network is made for one size"),
        (PYRAMID, {}, r"the node 'a' \(Add\) does not take the smaller size"),
        (CLASSIFIER, {"size": "64"}, "32x32 would become 64x64, which is no reduction"),
        (CLASSIFIER, {"size": "big"}, "the option size is 'big'"),
        (CLASSIFIER, {"scale": 1.5}, "the option scale must lie between 0 and 1"),
        (MAP.replace("32, 32", "h, w"), {}, "height or width of 'x' is open: send smaller pictures"),
    ],
)
def test_the_reason_is_told(text: str, options: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(TransformFailed, match=reason):
        run(write(tmp_path / "model.onnx", text), pictures(3, 32, 32), tmp_path, **options)
