"""What a transform is: it requires, it applies, it promises. The extension point `hasten.transform`.

A transform never judges itself: whether it pays and what it costs is measured by others. The base checks what can
be checked without timing: the requirement before, and afterwards that the result is a valid model with the same
signature and, for a transform that promises exactness, the same answers on calibration samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, final

import numpy as np

from hasten.data.dataset import Arrays, Subset
from hasten.data.feed import feed
from hasten.engine.base import engines
from hasten.errors import HastenError
from hasten.model.onnx_file import OnnxModel, open_model
from hasten.registry import Entry, Registry
from hasten.spec.target import Target

__all__ = ["Options", "Promise", "Transform", "TransformFailed", "transforms"]

Options = Mapping[str, str | int | float | bool]
Promise = Literal["exact", "approximate"]

# How close an exact transform must stay: reordered f32 sums differ in the last digits.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4
_PROBES = 3


class TransformFailed(HastenError):
    """A transform does not apply to this model, or broke its promise. The message is the reason that a report
    shows.
    """

    status = 1


class Transform(ABC):
    """One technique. Subclasses are final; they implement `requires` and `apply`."""

    name: str
    promise: Promise

    @abstractmethod
    def requires(self, model: OnnxModel) -> str | None:
        """Say in words why the technique does not apply to `model`, or return None."""

    @abstractmethod
    def apply(self, model: OnnxModel, out: Path, calibration: Subset, options: Options) -> None:
        """Write the transformed model to `out`. Sees calibration data only."""

    @final
    def run(self, source: Path, out: Path, calibration: Subset, options: Options) -> None:
        """Check, apply, check. Raises `TransformFailed` with a reason; leaves no file behind then."""
        model = open_model(source)
        reason = self.requires(model)
        if reason:
            raise TransformFailed(f"{self.name} does not apply: {reason}")
        try:
            self.apply(model, out, calibration, options)
            self._check(model, out, calibration)
        except HastenError:
            out.unlink(missing_ok=True)
            raise
        except Exception as error:
            out.unlink(missing_ok=True)
            raise TransformFailed(
                f"{self.name} failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            ) from error

    def _check(self, model: OnnxModel, out: Path, calibration: Subset) -> None:
        before, after = model.signature, open_model(out).signature
        if [(s.name, s.dtype) for s in (*before.inputs, *before.outputs)] != [
            (s.name, s.dtype) for s in (*after.inputs, *after.outputs)
        ]:
            raise TransformFailed(f"{self.name} changed the model's inputs or outputs.")
        if self.promise == "exact":
            samples = [calibration.inputs(i) for i in range(min(_PROBES, len(calibration)))]
            problem = _difference(model.path, out, samples)
            if problem:
                raise TransformFailed(f"{self.name} promises the same answers but changed them: {problem}")


def _difference(before: Path, after: Path, samples: Sequence[Arrays]) -> str | None:
    """Run both models on samples and say where they differ by more than rounding."""
    engine = engines.get("onnxruntime")
    left, right = (
        engine.load(before, Target(engine="onnxruntime")),
        engine.load(after, Target(engine="onnxruntime")),
    )
    for sample in samples:
        inputs = feed(left.signature, [sample])
        first, second = left.run(inputs), right.run(inputs)
        for name, array in first.items():
            if not _close(array, second[name]):
                return f"the output {name!r} differs by more than rounding."
    return None


def _close(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    if a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    scale = float(np.abs(a).max(initial=0.0))
    return bool(np.allclose(a, b, rtol=_RELATIVE, atol=_ABSOLUTE * max(scale, 1e-6), equal_nan=True))


transforms: Registry[Transform] = Registry(
    "transform",
    [
        Entry(name="raise_opset", target="hasten.transform.raise_opset:RaiseOpset"),
        Entry(name="fold", target="hasten.transform.fold:Fold"),
        Entry(name="quantize_static", target="hasten.transform.quantize_static:QuantizeStatic"),
    ],
)
