"""When requests come, and of which lane: the four processes of `make bench-overload`. Pure.

The load is a multiple of what the server was found to carry. A lead-in of the same kind comes before time 0 and is not
judged. In a step run the load stands for the middle third only, half of the capacity before and after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hasten.measure.arrivals import arrivals
from hasten.measure.load import Load

__all__ = ["KINDS", "LEAD_IN_S", "REST", "Arrivals", "drawn", "mmpp"]

KINDS = ("poisson", "gamma", "mmpp", "step")
LEAD_IN_S = 2.0
# What a step run offers before and after its step, as a multiple of the capacity.
REST = 0.5
_CV = 4.0
# The states of the modulated process: mean length of a stay in seconds, and rates as multiples of the mean rate.
_STAY_S, _LOW, _HIGH = 1.0, 0.25, 1.75


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrivals:
    """Requests in order of their time: `due` in seconds, negative in the lead-in; `lanes` numbers each one's lane.

    `loaded` is the span of time, in seconds, in which the load was what the run is about.
    """

    due: np.ndarray[Any, np.dtype[np.float64]]
    lanes: np.ndarray[Any, np.dtype[np.int64]]
    loaded: tuple[float, float]


def drawn(
    kind: str,
    load: float,
    capacity: float,
    seconds: float,
    mix: Sequence[float],
    seed: int,
    spells: int | None = None,
    lead_in_s: float = LEAD_IN_S,
) -> Arrivals:
    """Draw `seconds` of arrivals at `load` times `capacity` (requests per second), of lanes with the shares `mix`.
    With equal `spells` a modulated process is busy at the same times, so that loads can be compared.
    """
    first = REST * capacity if kind == "step" else load * capacity
    before = np.array(arrivals(Load(kind="poisson", value=first), lead_in_s, seed + 1)) - lead_in_s
    due = np.concatenate([before, _process(kind, load, capacity, seconds, seed, seed if spells is None else spells)])
    lanes = np.random.default_rng((seed, 2)).choice(len(mix), size=len(due), p=np.array(mix) / sum(mix))
    third = seconds / 3
    return Arrivals(due=due, lanes=lanes, loaded=(third, 2 * third) if kind == "step" else (0.0, seconds))


def _process(kind: str, load: float, capacity: float, seconds: float, seed: int, spells: int) -> np.ndarray[Any, Any]:
    rate = load * capacity
    if kind == "mmpp":
        return mmpp(rate, seconds, seed, spells)
    if kind == "step":
        asked = Load(kind="step", rates=(REST * capacity, rate, REST * capacity), step_s=seconds / 3)
    else:
        asked = Load(kind="gamma" if kind == "gamma" else "poisson", value=rate, cv=_CV if kind == "gamma" else 1.0)
    return np.array(arrivals(asked, seconds, seed))


def mmpp(rate: float, seconds: float, seed: int, spells: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A Markov-modulated Poisson process of two states, the busy one first: due times in seconds.

    Both states last as long on average, so that the mean rate is `rate` in the long run; how long each stay is follows
    from `spells` alone.
    """
    rng, stays = np.random.default_rng(seed), np.random.default_rng(spells)
    parts: list[np.ndarray[Any, np.dtype[np.float64]]] = []
    start, busy = 0.0, True
    while start < seconds:
        length = min(float(stays.exponential(_STAY_S)), seconds - start)
        # Given their number, the times of a Poisson process are uniform (Ross, Stochastic Processes, 1996, 2.3).
        count = int(rng.poisson(rate * (_HIGH if busy else _LOW) * length))
        parts.append(start + np.sort(rng.uniform(0, length, count)))
        start, busy = start + length, not busy
    return np.concatenate(parts)
