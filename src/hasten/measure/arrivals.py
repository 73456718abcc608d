"""Arrival processes: when each request of an open loop is due. Pure: a load, a length and a seed give due times.

The same seed gives the same arrivals, and a longer run begins with the arrivals of a shorter one, so that figures of
two lengths compare. Users who know nothing of each other make a Poisson process (Palm 1943); bursts are made by gaps
of a gamma distribution with a coefficient of variation above 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hasten.errors import UsageError
from hasten.measure.load import Load

__all__ = ["arrivals", "lead_in"]

Gaps = np.ndarray[Any, np.dtype[np.float64]]
_CHUNK = 1024


def arrivals(load: Load, duration_s: float, seed: int) -> list[float]:
    """Return due times in seconds from the start, in order, all below `duration_s`.

    Raises `UsageError` for a trace that cannot be read. A closed loop has no due times and is a mistake of ours.
    """
    assert load.open, "a closed loop has no due times"
    if load.kind == "trace":
        return _trace(Path(load.path), duration_s)
    rng = np.random.default_rng(seed)
    if load.kind == "step":
        return _steps(load, duration_s, rng)
    if load.kind == "gamma":
        return _gamma(load, duration_s, rng)
    return _poisson(load.value, duration_s, rng)


def lead_in(load: Load) -> Load | None:
    """Return the load that warms a target up for `load`: the same process, or the first rate of the steps.

    None for a trace and for steps that begin with a pause: a single caller warms up then.
    """
    if load.kind == "trace" or (load.kind == "step" and load.rates[0] == 0):
        return None
    return Load(kind="poisson", value=load.rates[0]) if load.kind == "step" else load


def _poisson(rate: float, duration_s: float, rng: np.random.Generator) -> list[float]:
    return _summed(0.0, duration_s, lambda: rng.exponential(1 / rate, _CHUNK))


def _gamma(load: Load, duration_s: float, rng: np.random.Generator) -> list[float]:
    """A renewal process that has been running for ever when we begin to look.

    Its first arrival ends a gap that was under way, and longer gaps are likelier to be under way: that gap is gamma
    with a shape of one more, and we look at a uniform moment of it (Cox, Renewal Theory, 1962, section 2.6).
    Otherwise a bursty process would begin with (CV² - 1) / 2 arrivals too many.
    """
    shape = 1 / load.cv**2
    scale = 1 / (load.value * shape)
    first = float(rng.uniform() * rng.gamma(shape + 1, scale))
    return _summed(first, duration_s, lambda: rng.gamma(shape, scale, _CHUNK), begins=True)


def _steps(load: Load, duration_s: float, rng: np.random.Generator) -> list[float]:
    """Poisson within each step; a Poisson process has no memory, so that steps can be made one by one."""
    due: list[float] = []
    # Each step has a stream of its own: what one step draws does not move the others.
    for number, (rate, stream) in enumerate(zip(load.rates, rng.spawn(len(load.rates)), strict=True)):
        start = number * load.step_s
        if rate and start < duration_s:
            length = min(load.step_s, duration_s - start)
            due += [start + at for at in _poisson(rate, length, stream)]
    return due


def _summed(first: float, duration_s: float, gaps: Callable[[], Gaps], *, begins: bool = False) -> list[float]:
    """Add up gaps until they pass `duration_s`; `begins` where `first` is an arrival itself."""
    due = [first] if begins and first < duration_s else []
    last = first
    while last < duration_s:
        times = last + np.cumsum(gaps())
        last = float(times[-1])
        due += times[times < duration_s].tolist()
    return due


def _trace(path: Path, duration_s: float) -> list[float]:
    """Recorded arrivals, counted from the first."""
    remedy = "Write arrivals in seconds, one a line."
    try:
        times = sorted(float(word) for word in path.read_text().split())
    except (OSError, ValueError) as error:
        raise UsageError(f"The trace {path} cannot be read: {error}.", remedy=remedy) from error
    if not times:
        raise UsageError(f"The trace {path} holds no arrival.", remedy=remedy)
    if not all(math.isfinite(t) for t in times):
        raise UsageError(f"The trace {path} holds a time that is no finite number.", remedy=remedy)
    return [t - times[0] for t in times if t - times[0] < duration_s]
