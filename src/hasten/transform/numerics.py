"""Hold a transformed model's answers against those of the model it was made from, on calibration samples.

Runs in the process that transforms, on the engine that is the reference for each file's format. No clock, no labels:
this is about numbers staying what a technique promises, not about speed or accuracy.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hasten.data.dataset import Arrays, Samples
from hasten.data.feed import feed
from hasten.engine.base import engines, reference_engine
from hasten.model.base import Model
from hasten.spec.target import Precision, Target

__all__ = ["Answers", "answers_of", "compare", "probes_for"]

# So many samples tell whether numbers stay the same. How far they move on average, by which a search finds the nodes
# that matter, takes more: most samples of a good classifier are so certain that nothing moves their answers.
_FEW, _MANY = 3, 16
# "exact": reordered f32 sums differ in the last digits. "close": relative L2 error of an output over all probes.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4
_CLOSE = 0.03

Answers = list[dict[str, np.ndarray[Any, Any]]]


def probes_for(promise: str) -> int:
    """How many samples a promise is held against."""
    return _MANY if promise == "approximate" else _FEW


def answers_of(
    model: Model,
    calibration: Samples,
    adapt: Callable[[Arrays], Arrays],
    precision: Precision = "f32",
    probes: int = _FEW,
) -> Answers:
    """Return the outputs of `model` for the first `probes` calibration samples. Raises `EngineError`."""
    name = reference_engine(model.format)
    session = engines.get(name).load(model.path, Target(engine=name, precision=precision))
    try:
        count = min(probes, len(calibration))
        samples = (adapt(calibration.inputs(index)) for index in range(count))
        return [session.run(feed(session.signature, [sample])) for sample in samples]
    finally:
        session.close()
        gc.collect()


def compare(wanted: Answers, got: Answers, promise: str) -> tuple[float | None, str | None]:
    """Return the relative L2 error over all probes of the output where it is largest, and in words how `promise` is
    broken, if it is.

    Outputs are matched by position: engines may name them differently where formats differ.
    """
    sums: dict[str, list[float]] = {}
    for before, after in zip(wanted, got, strict=True):
        for (name, left), right in zip(before.items(), after.values(), strict=True):
            problem = _shape_problem(left, right)
            if problem:
                return _worst(sums), f"the output {name!r} {problem}."
            if left.dtype.kind != "f":
                if promise == "exact" and not np.array_equal(left, right):
                    return _worst(sums), f"the output {name!r} changed."
                continue
            off, norm = _squares(left, right)
            total = sums.setdefault(name, [0.0, 0.0])
            total[0], total[1] = total[0] + off, total[1] + norm
            error = math.sqrt(off / (norm or 1.0))
            if promise == "exact" and not _same(left, right):
                return _worst(sums), f"the output {name!r} differs by more than rounding (relative error {error:.2g})."
            if promise == "close" and error > _CLOSE:
                return _worst(sums), f"the output {name!r} is off by {error:.1%} of its norm; {_CLOSE:.0%} is allowed."
    return _worst(sums), None


def _worst(sums: Mapping[str, Sequence[float]]) -> float | None:
    return max((math.sqrt(off / (norm or 1.0)) for off, norm in sums.values()), default=None)


def _shape_problem(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> str | None:
    if left.shape != right.shape:
        return f"has shape {list(right.shape)} instead of {list(left.shape)}"
    if left.dtype.kind != right.dtype.kind:
        return f"has type {right.dtype} instead of {left.dtype}"
    if left.dtype.kind == "f" and np.isfinite(left).all() and not np.isfinite(right).all():
        return "is no longer finite"
    return None


def _squares(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> tuple[float, float]:
    """The squared norms of the difference and of `left`, where both are finite."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    return float(np.sum((a[finite] - b[finite]) ** 2)), float(np.sum(a[finite] ** 2))


def _same(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> bool:
    finite = np.abs(left[np.isfinite(left)])
    scale = float(finite.max(initial=0.0))
    return bool(np.allclose(left, right, rtol=_RELATIVE, atol=_ABSOLUTE * max(scale, 1e-6), equal_nan=True))
