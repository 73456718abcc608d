"""Static int8: what is quantized, by which ranges, and what is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper
from tests.transform.small_models import images, quantized, small_convolutions

from hasten.data.dataset import Samples
from hasten.spec.applied import Applied
from hasten.transform.base import TransformFailed, transforms


def subject(folder: Path) -> tuple[Path, Samples]:
    return small_convolutions(folder / "convolutions.onnx"), images()


refused = quantized


def run(tmp_path: Path, skip: tuple[str, ...] = (), **options: Any) -> tuple[onnx.ModelProto, Applied]:
    source, samples = subject(tmp_path)
    (tmp_path / "out").mkdir()
    path, applied = transforms.get("quantize_static").run(source, tmp_path / "out", samples, options, skip)
    return onnx.load(str(path)), applied


def reads_dequantized(model: onnx.ModelProto, name: str) -> bool:
    made = {node.output[0]: node for node in model.graph.node}
    [node] = [node for node in model.graph.node if node.name == name]
    return all(tensor in made and made[tensor].op_type == "DequantizeLinear" for tensor in node.input[:2])


def test_convolutions_and_the_head_read_quantized_numbers(tmp_path: Path) -> None:
    model, applied = run(tmp_path)
    assert all(reads_dequantized(model, name) for name in ("first", "second", "head"))
    assert applied.sites == 3
    assert applied.error is not None
    assert 0 < applied.error < 0.1


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_every_way_to_find_ranges_gives_a_model_that_answers_alike(method: str, tmp_path: Path) -> None:
    _, applied = run(tmp_path, method=method)
    assert applied.error is not None
    assert applied.error < 0.25


def test_a_skipped_node_computes_in_float(tmp_path: Path) -> None:
    model, _ = run(tmp_path, skip=("second",))
    assert reads_dequantized(model, "first")
    assert not reads_dequantized(model, "second")


def test_only_the_operators_asked_for_are_sites_and_quantized(tmp_path: Path) -> None:
    model, applied = run(tmp_path, operators="Gemm")
    assert applied.sites == 1
    assert reads_dequantized(model, "head")
    assert not reads_dequantized(model, "first")


def test_reduced_range_keeps_weights_within_seven_bits(tmp_path: Path) -> None:
    model, _ = run(tmp_path, reduce_range=True)
    weights = [numpy_helper.to_array(t) for t in model.graph.initializer if t.name in ("w1_quantized", "w2_quantized")]
    assert len(weights) == 2
    assert all(int(array.min()) >= -64 and int(array.max()) <= 64 for array in weights)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"method": "guess"}, "no method 'guess'"), ({"weight_type": "QInt3"}, "no weight_type 'QInt3'")],
)
def test_a_value_that_is_not_known_is_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(TransformFailed, match=words):
        run(tmp_path, **options)


def test_a_bias_with_a_leading_axis_is_quantized_with_the_head(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    proto = onnx.load(str(source))
    [bias] = [tensor for tensor in proto.graph.initializer if tensor.name == "b3"]
    bias.dims[:] = [1, 5]
    onnx.save(proto, str(source))
    (tmp_path / "out").mkdir()
    path, applied = transforms.get("quantize_static").run(source, tmp_path / "out", samples, {})
    assert applied.skipped == ()
    assert reads_dequantized(onnx.load(str(path)), "head")
