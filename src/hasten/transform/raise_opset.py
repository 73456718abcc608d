"""Raise a model's operator set, because later operators can say more: per-channel quantization needs version 13."""

from __future__ import annotations

from typing import final

import onnx
from onnx import version_converter

from hasten.model.base import Model
from hasten.model.onnx_file import save_proto
from hasten.transform.base import Options, Task, Transform

__all__ = ["RaiseOpset"]


@final
class RaiseOpset(Transform):
    """Convert to at least operator set `to` (default 17). A model that is there already is copied."""

    name = "raise_opset"
    promise = "exact"

    defaults = {"to": 17}

    def requires(self, model: Model, options: Options) -> str | None:
        """The converter knows the standard operators only."""
        return "the model names no standard operator set." if model.opset == 0 else None

    def apply(self, task: Task) -> None:
        """Convert with ONNX's own version converter."""
        wanted = int(task.options["to"])
        proto = onnx.load(str(task.model.path))
        raised = version_converter.convert_version(proto, wanted) if task.model.opset < wanted else proto
        save_proto(raised, task.out)
