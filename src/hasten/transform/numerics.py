"""Hold a transformed model's answers against those of the model it was made from, on calibration samples.

Runs in the process that transforms, on the engine that is the reference for each file's format. No clock, no labels:
this is about numbers staying what a technique promises, not about speed or accuracy.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np

from hasten.data.dataset import Arrays, Samples
from hasten.data.feed import feed
from hasten.engine.base import engines, reference_engine
from hasten.model.base import Model
from hasten.spec.target import Target

__all__ = ["PROBES", "Answers", "answers_of", "compare"]

PROBES = 3
# "exact": reordered f32 sums differ in the last digits. "close": relative L2 error of an output over all probes.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4
_CLOSE = 0.03

Answers = list[dict[str, np.ndarray[Any, Any]]]


def answers_of(model: Model, calibration: Samples, adapt: Callable[[Arrays], Arrays]) -> Answers:
    """Return the outputs of `model` for the first few calibration samples. Raises `EngineError`."""
    name = reference_engine(model.format)
    session = engines.get(name).load(model.path, Target(engine=name))
    try:
        count = min(PROBES, len(calibration))
        samples = (adapt(calibration.inputs(index)) for index in range(count))
        return [session.run(feed(session.signature, [sample])) for sample in samples]
    finally:
        session.close()
        gc.collect()


def compare(wanted: Answers, got: Answers, promise: str) -> tuple[float | None, str | None]:
    """Return the largest relative L2 error of any output, and in words how `promise` is broken, if it is.

    Outputs are matched by position: engines may name them differently where formats differ.
    """
    worst: float | None = None
    for before, after in zip(wanted, got, strict=True):
        for (name, left), right in zip(before.items(), after.values(), strict=True):
            problem = _shape_problem(left, right)
            if problem:
                return worst, f"the output {name!r} {problem}."
            if left.dtype.kind != "f":
                if promise == "exact" and not np.array_equal(left, right):
                    return worst, f"the output {name!r} changed."
                continue
            error = _relative_l2(left, right)
            worst = error if worst is None else max(worst, error)
            if promise == "exact" and not _same(left, right):
                return worst, f"the output {name!r} differs by more than rounding (relative error {error:.2g})."
            if promise == "close" and error > _CLOSE:
                return worst, f"the output {name!r} is off by {error:.1%} of its norm; {_CLOSE:.0%} is allowed."
    return worst, None


def _shape_problem(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> str | None:
    if left.shape != right.shape:
        return f"has shape {list(right.shape)} instead of {list(left.shape)}"
    if left.dtype.kind != right.dtype.kind:
        return f"has type {right.dtype} instead of {left.dtype}"
    if left.dtype.kind == "f" and np.isfinite(left).all() and not np.isfinite(right).all():
        return "is no longer finite"
    return None


def _relative_l2(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> float:
    a, b = left.astype(np.float64), right.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    norm = float(np.linalg.norm(a[finite])) or 1.0
    return float(np.linalg.norm(a[finite] - b[finite])) / norm


def _same(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> bool:
    finite = np.abs(left[np.isfinite(left)])
    scale = float(finite.max(initial=0.0))
    return bool(np.allclose(left, right, rtol=_RELATIVE, atol=_ABSOLUTE * max(scale, 1e-6), equal_nan=True))
