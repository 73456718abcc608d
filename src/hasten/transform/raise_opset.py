"""Raise a model's operator set, because later operators can say more: per-channel quantization needs version 13."""

from __future__ import annotations

from pathlib import Path
from typing import final

import onnx
from onnx import version_converter

from hasten.data.dataset import Subset
from hasten.model.onnx_file import OnnxModel
from hasten.transform.base import Options, Transform

__all__ = ["RaiseOpset"]


@final
class RaiseOpset(Transform):
    """Convert to at least operator set `to` (default 17). A model that is there already is copied."""

    name = "raise_opset"
    promise = "exact"

    def requires(self, model: OnnxModel) -> str | None:
        """The converter knows the standard operators only."""
        return "the model names no standard operator set." if model.opset == 0 else None

    def apply(self, model: OnnxModel, out: Path, calibration: Subset, options: Options) -> None:
        """Convert with ONNX's own version converter."""
        wanted = int(options.get("to", 17))
        raised = version_converter.convert_version(model.proto, wanted) if model.opset < wanted else model.proto
        onnx.save_model(raised, str(out))
