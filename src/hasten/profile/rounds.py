"""The measuring: the model without a profiler, the model with it, and the ceilings, in turn and in random order.

Each round loads the profiled copy afresh, so that where memory happens to lie is part of the spread. A round of each
side follows the other within a second, so that what slows the machine for longer slows both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hasten.engine.isolate import IsolatedSession
from hasten.errors import EngineRunError
from hasten.measure.contention import Watch
from hasten.measure.turns import WARMUP, turn_ms
from hasten.profile.ceilings import Gauge
from hasten.spec.profile import Observation, OperatorTime
from hasten.spec.progress import Listener, Progress, ignore

__all__ = ["ROUNDS", "Noted", "Table", "measure", "merged"]

Array = np.ndarray[Any, np.dtype[np.float64]]

# A median with an interval needs six values, and engines that keep means give one for each round.
ROUNDS = 10
_ROUND_MS = 200.0
_FEWEST_RUNS, _MOST_RUNS = 3, 24


@dataclass(slots=True)
class Noted:
    """What the rounds gave: milliseconds by round without and with the profiler, and what the profiler noted."""

    plain: list[list[float]] = field(default_factory=list[list[float]])
    profiled: list[list[float]] = field(default_factory=list[list[float]])
    observations: list[Observation] = field(default_factory=list[Observation])
    contended: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Microseconds of each operator (rows) in each observation (columns): a run, or a round where means are kept."""

    operators: tuple[OperatorTime, ...]
    us: Array


def measure(
    session: IsolatedSession,
    slots: Sequence[int],
    gauge: Gauge | None,
    *,
    seed: int = 0,
    watch: Watch,
    listener: Listener = ignore,
) -> Noted:
    """Run all rounds over the kept samples `slots`. Raises `EngineError`."""
    rng, noted = np.random.default_rng(seed), Noted()
    once = float(np.median(turn_ms(session, [slots[0]] * 3, warmup=2)))
    runs = int(np.clip(_ROUND_MS / max(once, 1e-3), _FEWEST_RUNS, _MOST_RUNS))
    for number in range(ROUNDS):
        noted.contended += not watch.round_is_quiet()
        chosen = [int(slot) for slot in rng.choice(list(slots), runs)]
        sides = (_plain, _profile)
        for side in sides if rng.random() < 0.5 else reversed(sides):
            side(session, chosen, noted)
        if gauge is not None:
            gauge.read()
        listener(Progress(stage="profiling", done=number + 1, total=ROUNDS))
    return noted


def merged(observations: Sequence[Observation]) -> Table:
    """All observations as one table. Raises `EngineRunError` where rounds gave graphs that do not match.

    Operators are matched by their order, because an engine may number its inventions anew at each load; where a branch
    of the model left operators out of a round, by their names. Those that took no measurable time are left out.
    """
    table = _joined(observations)
    seen = [place for place, row in enumerate(table.us) if row.any()]
    return Table(operators=tuple(table.operators[place] for place in seen), us=table.us[seen])


def _joined(observations: Sequence[Observation]) -> Table:
    kinds = [[item.kind for item in one.operators] for one in observations]
    if all(row == kinds[0] for row in kinds):
        rows = [[time for one in observations for time in one.operators[place].us] for place in range(len(kinds[0]))]
        return Table(operators=observations[0].operators, us=np.array(rows, np.float64).reshape(len(rows), -1))
    if observations[0].averaged:
        # Such engines do not follow branches, so that nothing but another graph explains the difference.
        raise EngineRunError("The engine built another graph in each round; its operators cannot be matched.")
    known: dict[str, OperatorTime] = {}
    for one in observations:
        for item in one.operators:
            known.setdefault(item.name, item)
    rows = [[time for one in observations for time in _times(one, name)] for name in known]
    return Table(operators=tuple(known.values()), us=np.array(rows, np.float64))


def _plain(session: IsolatedSession, chosen: list[int], noted: Noted) -> None:
    noted.plain.append(turn_ms(session, chosen))


def _profile(session: IsolatedSession, chosen: list[int], noted: Noted) -> None:
    found = session.profile(chosen, warmup=WARMUP)
    session.rest()
    if not found.operators:
        raise EngineRunError("The engine's profiler noted no operator.")
    noted.observations.append(found)
    noted.profiled.append([us / 1e3 for us in found.wall_us])


def _times(one: Observation, name: str) -> Sequence[float]:
    """Times of an operator in an observation; zeros where it did not run."""
    found = next((item.us for item in one.operators if item.name == name), None)
    return found if found is not None else [0.0] * (1 if one.averaged else len(one.wall_us))
