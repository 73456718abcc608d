"""bf16 on OpenVINO with operators that stay in f32: the marks are in the file, and the engine obeys them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.engine.tflite import fully_connected
from tests.transform.small_models import images, small_convolutions

from hasten.data import Dataset
from hasten.data.dataset import Samples
from hasten.engine.base import engines
from hasten.model.open import open_model
from hasten.spec.target import Target
from hasten.transform import compute_bf16
from hasten.transform.base import TransformFailed, transforms

COMPUTE = transforms.get("compute_bf16")


def _missing() -> str:
    device = engines.get("openvino").probe().device("CPU")
    has = device is not None and "bf16" in device.precisions
    return "" if has else "this processor does not compute in bf16"


# Why the contract cannot be held here; empty where it can.
SKIP = _missing()
needs_bf16 = pytest.mark.skipif(bool(SKIP), reason=SKIP or "it does")


def subject(folder: Path) -> tuple[Path, Samples]:
    return small_convolutions(folder / "convolutions.onnx"), images()


def refused(folder: Path) -> tuple[Path, Samples]:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "whole",
        [helper.make_tensor_value_info("x", TensorProto.INT64, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [1, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "whole.onnx"))
    return folder / "whole.onnx", Dataset(inputs={"x": np.zeros((4, 4), np.int64)}).subset(range(4))


def run(source: Path, folder: Path, samples: Any, skip: tuple[str, ...] = ()) -> Any:
    folder.mkdir()
    return COMPUTE.run(source, folder, samples, {}, skip)


def precisions(model: Path) -> Iterator[str]:
    """What convolutions run in."""
    session: Any = engines.get("openvino").load(model, Target(engine="openvino", precision="bf16"))
    for operator in session.executed().get_ordered_ops():
        info = operator.get_rt_info()
        if str(info["layerType"].astype(str)) == "Convolution":
            yield str(info["runtimePrecision"].astype(str))
    session.close()


def test_sites_are_the_same_at_every_reading_and_leave_out_dense_products(tmp_path: Path) -> None:
    model = open_model(small_convolutions(tmp_path / "m.onnx"))
    sites = COMPUTE.sites(model, {})
    assert sites == COMPUTE.sites(model, {})
    assert "Convolution 1" in sites
    weights = np.eye(16, 8, dtype=np.float32)
    dense = open_model(fully_connected(tmp_path / "m.tflite", weights, np.zeros(8, np.float32), batch=1))
    assert not any(site.startswith("MatMul") for site in COMPUTE.sites(dense, {}))


@needs_bf16
def test_a_skipped_convolution_stays_in_f32_and_the_others_do_not(tmp_path: Path) -> None:
    source = small_convolutions(tmp_path / "m.onnx")
    every, applied = run(source, tmp_path / "every", images())
    one, _ = run(source, tmp_path / "one", images(), skip=("Convolution 2",))
    assert set(precisions(every)) == {"bf16"}
    assert sorted(precisions(one)) == ["bf16", "f32"]
    assert 0 < applied.error < 0.1


def test_a_processor_without_bf16_is_a_reason_and_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute_bf16, "_has_bf16", lambda: False)
    with pytest.raises(TransformFailed, match="this processor does not compute in bf16"):
        run(small_convolutions(tmp_path / "m.onnx"), tmp_path / "out", images())


@needs_bf16
def test_a_model_without_floating_point_numbers_is_refused(tmp_path: Path) -> None:
    source, samples = refused(tmp_path)
    with pytest.raises(TransformFailed, match="computes nothing in f32"):
        run(source, tmp_path / "out", samples)
