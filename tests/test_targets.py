"""`hasten bench` opens every kind of model, each on the usual engine of its format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import linear_model
from tests.engine.tflite import fully_connected

from hasten.errors import ModelError, UsageError
from hasten.model.torch_export import export_module
from hasten.targets import open_target

Make = Callable[[Path], Path]


def onnx_model(folder: Path) -> Path:
    return linear_model(folder / "m.onnx")


def tflite_model(folder: Path) -> Path:
    return fully_connected(folder / "m.tflite", np.ones((4, 3), np.float32), np.zeros(3, np.float32))


def openvino_model(folder: Path) -> Path:
    import openvino

    openvino.save_model(openvino.convert_model(str(onnx_model(folder))), str(folder / "m.xml"), compress_to_fp16=False)
    return folder / "m.xml"


def torch_model(folder: Path) -> Path:
    class Double(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    export_module(Double(), [{"x": np.ones(4, np.float32)}], folder / "m.pt2")
    return folder / "m.pt2"


@pytest.mark.parametrize("make", [onnx_model, tflite_model, openvino_model, torch_model])
def test_a_model_of_every_format_answers_samples(tmp_path: Path, make: Make) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((8, 4), np.float32))
    with open_target(str(make(tmp_path)), str(tmp_path / "data.npz")) as target:
        target.call(0)
        target.call(9)


def test_a_file_that_is_no_model_is_named_before_an_engine_sees_it(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ModelError, match="Python pickle"), open_target(str(tmp_path / "m.onnx"), None):
        pass


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"), open_target(str(tmp_path / "none.onnx"), None):
        pass
