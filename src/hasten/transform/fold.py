"""Fold constants and fuse batch normalization, with ONNX Runtime's basic graph optimizer, written back as
standard ONNX.

It also turns `Constant` nodes into initializers, which later transforms rely on.
"""

from __future__ import annotations

from typing import final

from hasten.errors import EngineLoadError
from hasten.model.base import Model
from hasten.transform.base import Options, Task, Transform

__all__ = ["Fold"]


@final
class Fold(Transform):
    """Constant folding, redundant-node removal and convolution-batch-norm fusion; standard operators only."""

    name = "fold"
    promise = "exact"

    def requires(self, model: Model, options: Options) -> str | None:
        """Every model that ONNX Runtime loads."""
        return None

    def apply(self, task: Task) -> None:
        """Load once with basic optimization and let the runtime save what it made."""
        import onnxruntime as ort

        settings = ort.SessionOptions()
        settings.log_severity_level = 3
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        settings.optimized_model_filepath = str(task.out)
        try:
            ort.InferenceSession(str(task.model.path), settings, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise EngineLoadError(
                f"onnxruntime could not fold the model: {' '.join(str(error).split())[:300]}"
            ) from error
