"""Padding is cut off inside the graph, and answers stay."""

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
from hasten.engine.base import engines
from hasten.model.open import open_model
from hasten.spec.target import Target
from hasten.transform.base import TransformFailed, transforms
from hasten.transform.samples import StoredSamples, store

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
# A mean over what is not masked; `size` shows how many positions the network really worked on.
MASKED = """ text (int64[n, s] ids, int64[n, s] attention_mask) => (float[n, 5] y) {
    e = Gather(table, ids)
    last = Constant<value = int64[1] {-1}>()
    f = Cast<to = 1>(attention_mask)
    m = Unsqueeze(f, last)
    k = Mul(e, m)
    total = ReduceSum<keepdims = 0>(k, axes)
    rows = ReduceSum<keepdims = 0>(m, axes)
    mean = Div(total, rows)
    y = MatMul(mean, W)
}"""
IGNORES = MASKED.replace("k = Mul(e, m)", "k = Identity(e)")
EVERY_POSITION = """ text (int64[n, s] ids, int64[n, s] attention_mask) => (float[n, s, 8] y) {
    e = Gather(table, ids)
    y = Identity(e)
}"""
NO_MASK = """ text (int64[n, s] ids) => (float[n, 8] y) {
    e = Gather(table, ids)
    y = ReduceMean<axes = [1], keepdims = 0>(e)
}"""


def write(path: Path, text: str) -> Path:
    model = onnx.parser.parse_model(HEAD + text)
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "table": rng.normal(size=(50, 8)).astype(np.float32),
        "W": rng.normal(size=(8, 5)).astype(np.float32),
        "axes": np.array([1]),
    }
    for name, array in arrays.items():
        if any(name in node.input for node in model.graph.node):
            model.graph.initializer.append(numpy_helper.from_array(array, name))
    model.metadata_props.add(key="author", value="a test")
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return path


def padded(texts: tuple[int, ...] = (5, 3, 9, 4), length: int = 32) -> Samples:
    rng = np.random.default_rng(1)
    mask = np.array([[1] * n + [0] * (length - n) for n in texts])
    return Dataset(inputs={"ids": rng.integers(1, 50, mask.shape) * mask, "attention_mask": mask}).subset(
        range(len(texts))
    )


def subject(folder: Path) -> tuple[Path, Samples]:
    return write(folder / "masked.onnx", MASKED), padded()


def refused(folder: Path) -> tuple[Path, Samples]:
    return write(folder / "every.onnx", EVERY_POSITION), padded()


def run(source: Path, samples: Samples, tmp_path: Path, **options: Any) -> tuple[Path, tuple[str, ...]]:
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    path, applied = transforms.get("trim_padding").run(source, out, samples, options)
    return path, applied.notes


def positions(path: Path, feed: dict[str, Any]) -> tuple[int, ...]:
    """The shape that the embedding really had."""
    proto = onnx.load(str(path))
    looked_up = next(
        node.output[0] for node in proto.graph.node if node.op_type == "Gather" and node.input[0] == "table"
    )
    proto.graph.output.append(onnx.helper.make_tensor_value_info(looked_up, onnx.TensorProto.FLOAT, None))
    probe = path.with_name("probe.onnx")
    onnx.save(proto, str(probe))
    session = engines.get("onnxruntime").load(probe, Target(engine="onnxruntime"))
    try:
        return tuple(session.run(feed)[looked_up].shape)
    finally:
        session.close()


def answers(path: Path, feed: dict[str, Any]) -> Any:
    session = engines.get("onnxruntime").load(path, Target(engine="onnxruntime"))
    try:
        return session.run(feed)["y"]
    finally:
        session.close()


def batch(*lengths: int, sent: int = 32) -> dict[str, Any]:
    whole = padded(lengths, sent)
    rows = [whole.inputs(at) for at in range(len(lengths))]
    return {name: np.stack([row[name] for row in rows]) for name in ("ids", "attention_mask")}


def test_the_network_works_on_the_longest_text_of_the_batch_rounded_up(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    path, notes = run(source, samples, tmp_path)
    assert [positions(path, batch(*lengths))[1] for lengths in [(3,), (8, 2), (9, 1, 1)]] == [8, 8, 16]
    assert notes[0].startswith("84% of the positions that were sent are padding; cut to 8, 16 positions by attention_m")
    assert "does not speed the model up" in notes[0]
    assert open_model(path).signature == open_model(source).signature
    assert open_model(path).metadata() == {"author": "a test"}


@pytest.mark.parametrize("lengths", [(1,), (8,), (9,), (16, 3), (31,), (32, 32)])
def test_answers_stay_for_any_text(lengths: tuple[int, ...], tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    path, _ = run(source, samples, tmp_path)
    np.testing.assert_allclose(answers(path, batch(*lengths)), answers(source, batch(*lengths)), rtol=1e-4, atol=1e-5)


def test_a_text_longer_than_all_that_were_seen_is_not_cut(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    path, _ = run(source, samples, tmp_path)
    assert positions(path, batch(40, sent=64))[1] == 64


def test_a_mask_with_a_hole_keeps_everything_up_to_its_last_one(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    path, _ = run(source, samples, tmp_path)
    feed = batch(12)
    feed["attention_mask"][0, 3:7] = 0
    assert positions(path, feed)[1] == 16
    np.testing.assert_allclose(answers(path, feed), answers(source, feed), rtol=1e-4, atol=1e-5)


def test_a_batch_of_nothing_gives_nothing(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    path, _ = run(source, samples, tmp_path)
    empty = {name: array[:0] for name, array in batch(3).items()}
    assert answers(path, empty).shape == (0, 5)


@pytest.mark.parametrize(
    ("text", "options", "reason"),
    [
        (EVERY_POSITION, {}, "'y' has the sequence axis 's' too"),
        (NO_MASK, {}, "it needs token numbers and an attention mask"),
        (MASKED.replace("[n, s]", "[n, 32]"), {}, "fixed length of 32: export the model with an open sequence axis"),
        (IGNORES, {}, "'attention_mask' is no mask over padding: the output 'y' differs"),
        (MASKED, {"buckets": 0}, "must be at least 1"),
    ],
)
def test_the_reason_is_told(text: str, options: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(TransformFailed, match=reason):
        run(write(tmp_path / "model.onnx", text), padded(), tmp_path, **options)


def test_where_nothing_is_padded_there_is_nothing_to_do(tmp_path: Path) -> None:
    source, _ = subject(tmp_path)
    with pytest.raises(TransformFailed, match="carry no padding to speak of"):
        run(source, padded((32, 31, 32)), tmp_path)


def test_inputs_that_only_look_like_a_mask_are_not_taken_for_one(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    odd = [{**samples.inputs(at), "attention_mask": 2 * samples.inputs(at)["attention_mask"]} for at in range(4)]
    with pytest.raises(TransformFailed, match="no input is an attention mask"):
        run(source, Dataset(inputs=odd).subset(range(4)), tmp_path)


def test_a_sentence_encoder_answers_as_before_on_a_fraction_of_the_positions(
    zoo_file: Callable[[str], Path], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    mask = np.array([[1] * n + [0] * (128 - n) for n in (9, 22, 14)])
    inputs = {"input_ids": rng.integers(1000, 2000, mask.shape) * mask, "attention_mask": mask}
    store(Dataset(inputs=inputs).subset(range(3)), tmp_path / "samples")
    _, notes = run(zoo_file("minilm"), StoredSamples(tmp_path / "samples"), tmp_path)
    assert notes[0].startswith("88% of the positions that were sent are padding; cut to 16, 24 positions")
