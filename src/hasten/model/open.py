"""Open a trained model of any format: the content decides, not the name."""

from __future__ import annotations

import importlib
from pathlib import Path

from hasten.errors import ModelError
from hasten.model.base import Model
from hasten.model.foreign import HEAD, holds_program
from hasten.spec.target import Format

__all__ = ["format_of", "open_model"]

_OPENERS: dict[Format, str] = {
    "onnx": "hasten.model.onnx_file:open_onnx",
    "tflite": "hasten.model.tflite_file:open_tflite",
    "openvino": "hasten.model.openvino_ir:open_ir",
    "torch": "hasten.model.torch_program:open_program",
}


def open_model(path: Path | str) -> Model:
    """Open and check a model file. Raises `ModelError` that names the file, what is wrong and what to do."""
    path = Path(path)
    module, _, name = _OPENERS[format_of(path)].partition(":")
    return getattr(importlib.import_module(module), name)(path)


def format_of(path: Path) -> Format:
    """Tell the format by the first bytes; what is no other format is taken for ONNX, whose files have no mark."""
    if path.is_dir():
        raise ModelError(f"{path} is a folder.", remedy="Give the model file itself.")
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD)
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist.", remedy="Check the path.") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.", remedy="Check its permissions.") from error
    if head[4:8] == b"TFL3":
        return "tflite"
    if head.startswith(b"PK\x03\x04") and (path.suffix == ".pt2" or holds_program(path)):
        return "torch"
    if head.lstrip().startswith((b"<?xml", b"<net")):
        return "openvino"
    return "onnx"
