"""Two targets against each other: one caller, interleaved rounds in random order, one ratio for each round.

What a machine does to both cancels; what it does to one side of a round does not. So each round waits for a quiet
machine, and a round that had to begin on a contended one is made again, as long as there is patience: the rounds that
count are chosen by what was seen before them, never by what they gave.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np

from hasten.engine.process import SETTLE_S
from hasten.measure.contention import Watch
from hasten.measure.traffic import Callee, Pace
from hasten.measure.turns import WARMUP
from hasten.spec.measurement import Figure
from hasten.stats.ratio import speedup

__all__ = ["Comparison", "compare_targets"]

# Timed calls of each side in a round, after those that bring its data back into the caches.
_RUNS = 5
# Calls before those, at the most, until threads have settled.
_MOST_UNTIMED = 100
# At most so many times the rounds that were asked for.
_EXTENDED = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """`ratio`: how many times faster a is than b. `rounds` count, `repeated` were made again, and `contended` of those
    that count began on a contended machine.
    """

    ratio: Figure
    rounds: int
    repeated: int
    contended: int


def compare_targets(
    a: Callee,
    b: Callee,
    *,
    rounds: int,
    seed: int,
    watch: Watch,
    tick: Callable[[int], None],
    pace: Pace | None = None,
) -> Comparison:
    """Return how many times faster `a` is than `b`, paired by round. Both are called with the same sample numbers.

    Raises what a target raises: a request that fails ends the comparison.
    """
    pace, rng = pace or Pace(), np.random.default_rng(seed)
    quiet: list[tuple[float, float]] = []
    every: list[tuple[float, float]] = []
    while len(quiet) < rounds and len(every) < rounds * _EXTENDED:
        calm = watch.round_is_quiet()
        times = _round((a, b), rng, pace)
        every.append(times)
        if calm:
            quiet.append(times)
        tick(len(quiet) if calm else min(len(every), rounds))
        if len(every) >= rounds and not calm and watch.spent:
            # Nothing more can be waited for: further rounds would be no better.
            break
    enough = len(quiet) >= rounds
    counted = quiet if enough else every
    contended = 0 if enough else len(every) - len(quiet)
    ratio = speedup([times[1] for times in counted], [times[0] for times in counted], seed=seed)
    if contended and ratio.value is not None:
        words = f"{ratio.method}; {contended} of {len(counted)} rounds on a contended machine"
        ratio = msgspec.structs.replace(ratio, method=words)
    return Comparison(
        ratio=ratio, rounds=len(counted), repeated=len(every) - min(len(every), rounds), contended=contended
    )


def _round(sides: tuple[Callee, Callee], rng: np.random.Generator, pace: Pace) -> tuple[float, float]:
    """Mean milliseconds of both sides, in random order, on the same samples."""
    first = int(rng.integers(1 << 30))
    times = [0.0, 0.0]
    for side in (0, 1) if rng.random() < 0.5 else (1, 0):
        started = pace.now()
        for i in range(_MOST_UNTIMED):
            if i >= WARMUP and pace.now() - started >= SETTLE_S:
                break
            sides[side].call(first + i)
        times[side] = float(np.mean([_timed(sides[side], first + i, pace) for i in range(_RUNS)]))
        sides[side].rest()
    return times[0], times[1]


def _timed(callee: Callee, index: int, pace: Pace) -> float:
    started = pace.now()
    callee.call(index)
    return (pace.now() - started) * 1e3
