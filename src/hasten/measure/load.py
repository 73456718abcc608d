"""Load: who calls when, as one writes it on the command line. A frozen value; nothing here makes calls.

    closed:N              N callers, each sends its next request when the last is answered
    poisson:RPS           independent users: exponential gaps at a mean rate
    gamma:RPS:CV          gaps with a coefficient of variation of CV; 1 is poisson, 4 is bursty, 0.2 nearly a metronome
    step:R1,R2,...:S      a rate that changes every S seconds, Poisson within each step
    trace:FILE            recorded arrivals, in seconds, one a line

`hasten.measure.arrivals` makes due times of the open ones, `hasten.measure.traffic` makes the calls.
"""

from __future__ import annotations

from typing import Literal

from hasten.errors import UsageError
from hasten.spec.values import Value

__all__ = ["DEFAULT_S", "HOW", "Load", "length_s", "parse_load"]

# How long a load lasts that has no length of its own, unless the user says so.
DEFAULT_S = 10.0
HOW = "closed:N, poisson:RPS, gamma:RPS:CV, step:RPS,RPS,...:SECONDS or trace:FILE"
_FASTEST = 1e6  # requests per second; more is a slip of the pen
_MOST_CALLERS = 4096
_WILDEST = 100.0  # coefficient of variation


class Load(Value, frozen=True):
    """A traffic pattern. `value` is the number of callers (closed) or the mean requests per second (poisson, gamma).

    `cv` is the coefficient of variation of the gaps (gamma). `rates` are requests per second, each for `step_s`
    seconds (step). `path` is the trace.
    """

    kind: Literal["closed", "poisson", "gamma", "step", "trace"]
    value: float = 1.0
    cv: float = 1.0
    rates: tuple[float, ...] = ()
    step_s: float = 0.0
    path: str = ""

    @property
    def open(self) -> bool:
        """Whether requests come when they come, whatever the target does."""
        return self.kind != "closed"


def parse_load(text: str) -> Load:
    """Read a load as the command line writes it. Raises `UsageError` with the ways to write one."""
    kind, _, rest = text.partition(":")
    try:
        load = _parsed(kind, rest)
    except ValueError:
        load = None
    if load is None:
        raise UsageError(
            f"{text!r} is no load.",
            remedy=f"Write {HOW}. Rates are requests per second, a trace holds arrivals in seconds, one a line.",
        )
    return load


def length_s(load: Load, asked_s: float | None) -> float:
    """Return for how many seconds `load` is put on: what was asked for, its own length, or ten seconds.

    A trace without a limit is infinite here: it ends with its last arrival.
    """
    if load.kind == "step":
        whole = load.step_s * len(load.rates)
        return whole if asked_s is None else min(asked_s, whole)
    if asked_s is not None:
        return asked_s
    return float("inf") if load.kind == "trace" else DEFAULT_S


def _parsed(kind: str, rest: str) -> Load | None:
    """The load, or None where a number lies out of bounds. Raises ValueError for what is no number."""
    if kind == "closed":
        return Load(kind="closed", value=int(rest)) if 1 <= int(rest) <= _MOST_CALLERS else None
    if kind == "poisson":
        return Load(kind="poisson", value=float(rest)) if _is_rate(float(rest)) else None
    if kind == "gamma":
        rate, cv = (float(part) for part in rest.split(":"))
        return Load(kind="gamma", value=rate, cv=cv) if _is_rate(rate) and 0 < cv <= _WILDEST else None
    if kind == "step":
        return _step(rest)
    return Load(kind="trace", path=rest) if kind == "trace" and rest else None


def _step(rest: str) -> Load | None:
    """A rate of 0 is a pause and may stand anywhere but everywhere."""
    listed, _, seconds = rest.rpartition(":")
    rates = tuple(float(part) for part in listed.split(","))
    fine = all(rate == 0 or _is_rate(rate) for rate in rates) and any(rates)
    if not fine or not 0 < float(seconds) < float("inf"):
        return None
    return Load(kind="step", rates=rates, step_s=float(seconds))


def _is_rate(value: float) -> bool:
    return 0 < value < _FASTEST
