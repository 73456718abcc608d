"""PyTorch programs become ONNX models with the same names, open dimensions and answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from tests.conftest import linear_model

from hasten.data import Dataset
from hasten.data.dataset import Samples
from hasten.model.open import open_model
from hasten.model.torch_export import export_module
from hasten.transform.base import transforms

IMAGES = [{"image": image} for image in np.random.default_rng(0).normal(size=(6, 3, 8, 8)).astype(np.float32)]


class Small(torch.nn.Module):
    """A convolution with batch normalization and dropout, which only evaluation mode makes a function."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.drop = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, image: Any) -> Any:
        hidden = torch.nn.functional.gelu(self.norm(self.conv(image)))
        return self.head(self.drop(hidden.mean((2, 3)))), hidden.amax((2, 3))


def subject(folder: Path) -> tuple[Path, Samples]:
    path = folder / "small.pt2"
    export_module(Small(), IMAGES, path)
    return path, Dataset(inputs=IMAGES).subset(range(len(IMAGES)))


def refused(folder: Path) -> tuple[Path, Samples]:
    data = Dataset(inputs={"x": np.zeros((4, 4), np.float32)})
    return linear_model(folder / "linear.onnx"), data.subset(range(4))


def exported(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    source, samples = subject(tmp_path / "in")
    return transforms.get("export_onnx").run(source, tmp_path / "out", samples, {})[0]


def test_names_and_the_open_batch_axis_are_those_of_the_program(tmp_path: Path) -> None:
    after = open_model(exported(tmp_path)).signature
    before = open_model(tmp_path / "in" / "small.pt2").signature
    assert [s.name for s in after.inputs] == ["image"]
    assert [s.name for s in after.outputs] == [s.name for s in before.outputs]
    assert isinstance(after.inputs[0].shape[0], str)
    assert after.inputs[0].shape[1:] == (3, 8, 8)


def test_batch_normalization_is_in_evaluation_mode(tmp_path: Path) -> None:
    assert "Dropout" not in open_model(exported(tmp_path)).operators()


def test_no_path_of_the_source_gets_into_the_model(tmp_path: Path) -> None:
    raw = exported(tmp_path).read_bytes()
    assert b".py" not in raw
    assert str(Path(__file__).parent).encode() not in raw
    onnx.checker.check_model(onnx.load_model_from_string(raw))
