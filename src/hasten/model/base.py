"""What a trained model is to the rest of the house, whatever its file format.

`hasten.model.open.open_model` gives one. Formats differ in what can be done with them, not in what can be asked.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Protocol

from hasten.spec.signature import Signature
from hasten.spec.target import Format

__all__ = ["SUFFIXES", "Model"]

# What a file of each format is called. Engines go by the content, not by this.
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "tflite": ".tflite", "openvino": ".xml", "torch": ".pt2"}


class Model(Protocol):
    """An opened trained model. Opening never runs it."""

    @property
    def path(self) -> Path:
        """The file that engines load."""
        ...

    @property
    def format(self) -> Format:
        """Which kind of file it is."""
        ...

    @property
    def signature(self) -> Signature:
        """Inputs and outputs."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 over all files of the model."""
        ...

    @property
    def opset(self) -> int:
        """Version of the operator set: of the standard ONNX operators, or of the format's own."""
        ...

    @property
    def bytes_on_disk(self) -> int:
        """Size of all files of the model."""
        ...

    def files(self) -> list[Path]:
        """The file that engines load first, then every file that it refers to (external weights), all in one folder."""
        ...

    def operators(self) -> Counter[str]:
        """How often each operator occurs, subgraphs included, constants left out."""
        ...

    def parameters(self) -> int:
        """Number of weights."""
        ...

    def metadata(self) -> dict[str, str]:
        """The key-value pairs that the exporter attached."""
        ...
