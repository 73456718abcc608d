"""Token sequences are cut inside the graph, and everything with the old length written into it follows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hasten.data import Dataset
from hasten.data.dataset import Samples
from hasten.model.open import open_model
from hasten.transform.base import TransformFailed, transforms
from hasten.transform.numerics import answers_of
from hasten.transform.samples import StoredSamples, store
from hasten.transform.shrink import regrouped

OPTIONS: dict[str, Any] = {"length": 8}
HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
# Embedding, positions, two heads of attention-like shapes, a mean over positions: lengths are written into it thrice.
FIXED = """ text (int64[n, 16] ids, int64[n, 16] mask) => (float[n, 5] y) {
    e = Gather(table, ids)
    p = Add(e, positions)
    split = Constant<value = int64[4] {-1, 16, 2, 4}>()
    h = Reshape(p, split)
    t = Transpose<perm = [0, 2, 1, 3]>(h)
    back = Transpose<perm = [0, 2, 1, 3]>(t)
    join = Constant<value = int64[3] {-1, 16, 8}>()
    r = Reshape(back, join)
    last = Constant<value = int64[1] {-1}>()
    f = Cast<to = 1>(mask)
    m = Unsqueeze(f, last)
    k = Mul(r, m)
    mean = ReduceMean<axes = [1], keepdims = 0>(k)
    y = MatMul(mean, W)
}"""
OPEN = """ text (int64[n, s] ids) => (float[n, 5] y) {
    e = Gather(table, ids)
    mean = ReduceMean<axes = [1], keepdims = 0>(e)
    y = MatMul(mean, W)
}"""
EVERY_POSITION = """ text (int64[n, 16] ids) => (float[n, 16, 5] y) {
    e = Gather(table, ids)
    y = MatMul(e, W)
}"""
FLATTENED = """ text (int64[n, 16] ids) => (float[n, 5] y) {
    e = Gather(table, ids)
    f = Flatten(e)
    y = Gemm(f, D)
}"""


def write(path: Path, text: str) -> Path:
    model = onnx.parser.parse_model(HEAD + text)
    rng = np.random.default_rng(0)
    shapes = {"table": (50, 8), "positions": (1, 16, 8), "W": (8, 5), "D": (128, 5)}
    for name, shape in shapes.items():
        if any(name in node.input for node in model.graph.node):
            model.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    model.metadata_props.add(key="author", value="a test")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return path


def tokens(count: int = 6, length: int = 16, *, mask: bool = False) -> Samples:
    rng = np.random.default_rng(1)
    columns = {"ids": rng.integers(0, 50, (count, length))}
    if mask:
        columns["mask"] = np.ones((count, length), np.int64)
    return Dataset(inputs=columns).subset(range(count))


def subject(folder: Path) -> tuple[Path, Samples]:
    return write(folder / "fixed.onnx", FIXED), tokens(mask=True)


def refused(folder: Path) -> tuple[Path, Samples]:
    return write(folder / "every.onnx", EVERY_POSITION), tokens()


def run(source: Path, samples: Samples, tmp_path: Path, **options: Any) -> tuple[Path, tuple[str, ...]]:
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    path, applied = transforms.get("reduce_length").run(source, out, samples, options)
    return path, applied.notes


def test_the_cut_model_answers_as_the_whole_one_does_for_tokens_behind_the_cut_masked_away(tmp_path: Path) -> None:
    """With a sum in place of the mean both would be equal; the mean differs by the ratio of the lengths."""
    source, samples = subject(tmp_path)
    path, notes = run(source, samples, tmp_path, length=8)
    masked = [dict(samples.inputs(i)) for i in range(len(samples))]
    for sample in masked:
        sample["mask"] = np.array([1] * 8 + [0] * 8)
    whole = answers_of(open_model(source), Dataset(inputs=masked).subset(range(3)), lambda s: s)
    cut = answers_of(open_model(path), samples, lambda s: s)
    for left, right in zip(whole, cut, strict=True):
        np.testing.assert_allclose(2 * left["y"], right["y"], rtol=1e-4, atol=1e-5)
    assert notes == ("sequences are cut to 8 inside the graph (start): ids, mask.",)
    assert open_model(path).metadata() == {"author": "a test"}


@pytest.mark.parametrize(
    ("keep", "kept"), [("start", [0, 1, 2, 3]), ("end", [12, 13, 14, 15]), ("ends", [0, 1, 14, 15])]
)
def test_the_part_that_the_recipe_names_is_kept(keep: str, kept: list[int], tmp_path: Path) -> None:
    source = write(tmp_path / "open.onnx", OPEN.replace("int64[n, s]", "int64[n, 16]"))
    samples = tokens()
    path, _ = run(source, samples, tmp_path, length=4, keep=keep)
    [answer, *_] = answers_of(open_model(path), samples, lambda s: s)
    proto = onnx.load(str(source))
    table, weights = (numpy_helper.to_array(tensor) for tensor in proto.graph.initializer)
    wanted = table[samples.inputs(0)["ids"][kept]].mean(axis=0) @ weights
    np.testing.assert_allclose(answer["y"][0], wanted, rtol=1e-4, atol=1e-5)


def test_sequences_of_any_length_are_cut_only_where_they_are_longer(tmp_path: Path) -> None:
    source = write(tmp_path / "open.onnx", OPEN)
    path, _ = run(source, tokens(length=16), tmp_path, length=8)
    short = tokens(length=5)
    before, after = (answers_of(open_model(item), short, lambda s: s) for item in (source, path))
    for left, right in zip(before, after, strict=True):
        np.testing.assert_array_equal(left["y"], right["y"])


def test_it_refuses_to_do_nothing(tmp_path: Path) -> None:
    with pytest.raises(TransformFailed, match="no calibration sample is longer than 8"):
        run(write(tmp_path / "open.onnx", OPEN), tokens(length=5), tmp_path, length=8)


@pytest.mark.parametrize(
    ("text", "options", "reason"),
    [
        (EVERY_POSITION, {"length": 8}, r"output 'y' would have shape \[1, 8, 5\] instead of \[1, 16, 5\]"),
        (FLATTENED, {"length": 8}, "a dense layer over all positions"),
        (FIXED, {"length": 16}, "sequences have 16 positions, no more than 16"),
        (FIXED, {"length": 8, "keep": "middle"}, "keep is 'middle'; it must be one of start, end, ends"),
        (OPEN, {"length": 8, "keep": "ends"}, "short ones would repeat their middle"),
        (OPEN.replace("float[n, 5] y", "float[n, s] y"), {"length": 8}, "'y' has the sequence axis 's' too"),
    ],
)
def test_the_reason_is_told(text: str, options: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    if "[n, s] y" in text:
        text = text.replace("W)", "W)").replace("mean = ReduceMean<axes = [1], keepdims = 0>(e)", "mean = Identity(e)")
        text = text.replace("y = MatMul(mean, W)", "y = ReduceMean<axes = [2], keepdims = 0>(mean)")
    with pytest.raises(TransformFailed, match=reason):
        run(write(path, text), tokens(mask="mask" in text), tmp_path, **options)


def test_an_old_operator_set_is_told_what_to_do(tmp_path: Path) -> None:
    path = write(tmp_path / "open.onnx", OPEN)
    proto = onnx.load(str(path))
    proto.opset_import[0].version = 9
    onnx.save(proto, str(path))
    with pytest.raises(TransformFailed, match="raise_opset first"):
        run(path, tokens(), tmp_path, length=8)


@pytest.mark.parametrize(
    ("old", "target", "new", "changed", "wanted"),
    [
        ((1, 64, 7, 7), (1, 3136), (1, 64, 5, 5), {}, (1, 1600)),
        ((1, 49, 64), (1, 7, 7, 64), (1, 25, 64), {7: 5}, (1, 5, 5, 64)),
        ((1, 49, 64), (1, 7, 7, 64), (1, 25, 64), {}, None),
        ((1, 16, 8), (1, 16, 2, 4), (1, 12, 8), {16: 12}, (1, 12, 2, 4)),
        ((4, 6), (24, 1, 1), (4, 3), {}, (12, 1, 1)),
        ((1, 2048, 64), (1, 512, 256), (1, 512, 64), {2048: 512}, (1, 128, 256)),
        ((1, 6, 4), (1, 3, 8), (1, 5, 4), {}, None),
    ],
)
def test_reshapes_follow_by_groups_of_equal_products(
    old: tuple[int, ...],
    target: tuple[int, ...],
    new: tuple[int, ...],
    changed: dict[int, int],
    wanted: tuple[int, ...] | None,
) -> None:
    assert regrouped(old, target, new, changed) == wanted


def test_a_file_type_classifier_reads_a_quarter_of_the_bytes(zoo_file: Callable[[str], Path], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = Dataset(inputs={"bytes": rng.integers(0, 257, (3, 2048)).astype(np.int32)})
    store(data.subset(range(3)), tmp_path / "samples")
    path, notes = run(zoo_file("magika"), StoredSamples(tmp_path / "samples"), tmp_path, length=512, keep="ends")
    assert notes == ("sequences are cut to 512 inside the graph (ends): bytes.",)
    assert open_model(path).signature == open_model(zoo_file("magika")).signature
