"""What a model is made of, counted without running it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hasten.model.anatomy import count_macs
from hasten.model.onnx_file import open_onnx

Make = Callable[..., Path]


def test_multiply_accumulates_follow_the_given_dimensions(make_linear: Make) -> None:
    model = open_onnx(make_linear())
    assert count_macs(model, {}).total == 12
    assert count_macs(model, {"batch": 8}).total == 96
