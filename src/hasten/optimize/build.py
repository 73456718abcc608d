"""Build a variant's model file by its recipe; equal recipes are built once."""

from __future__ import annotations

import os
from pathlib import Path

from hasten.data.dataset import Subset
from hasten.optimize.trials import fingerprint
from hasten.spec.variant import Variant
from hasten.transform.base import TransformFailed, transforms

__all__ = ["Builder"]


class Builder:
    """Turns recipes into model files below `folder`. It is given calibration data and nothing else."""

    def __init__(self, source: Path, calibration: Subset, folder: Path) -> None:
        self._source = source
        self._calibration = calibration
        self._folder = folder
        self._failed: dict[str, TransformFailed] = {}

    def build(self, variant: Variant) -> Path:
        """Return the model file of `variant`. Raises `TransformFailed`, again and at once for a recipe that
        failed before.
        """
        current = self._source
        for length in range(1, len(variant.recipe) + 1):
            current = self._step(current, variant, length)
        return current

    def _step(self, source: Path, variant: Variant, length: int) -> Path:
        recipe = variant.recipe[:length]
        key = fingerprint(recipe)[:16]
        out = self._folder / f"{key}.onnx"
        if key in self._failed:
            raise self._failed[key]
        if not out.exists():
            step = recipe[-1]
            partial = out.with_name(f"{key}.partial.onnx")
            try:
                transforms.get(step.transform).run(source, partial, self._calibration, step.options)
            except TransformFailed as error:
                self._failed[key] = error
                raise
            os.replace(partial, out)
        return out
