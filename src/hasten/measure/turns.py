"""A turn: one arm is timed while the others use no processor, and then rests itself.

Threads of engines spin after a run: ONNX Runtime's keep a core busy for 40 to 70 ms, waiting for the next one. In a
service that is the engine's own affair. Where two engines take turns on the same cores, whoever comes second runs with
a core less, and a watch over the machine takes the spinning for contention: the same model against itself in a second
process then reads anything from 0.8 to 1.6. So an arm that has had its turn is stopped until its next one, and goes on
where it was.

The first runs of a turn are not timed: the other side has just used the caches, and threads that were stopped are not
where they were. The worker sees to both (`hasten.engine.process.SETTLE_S`).
"""

from __future__ import annotations

from collections.abc import Sequence

from hasten.engine.process import SETTLE_S
from hasten.measure.base import Arm

__all__ = ["WARMUP", "turn_ms", "turn_s"]

# Weights of a few dozen MB are back in the caches after about so many runs.
WARMUP = 3


def turn_ms(arm: Arm, slots: Sequence[int], *, warmup: int = WARMUP) -> list[float]:
    """Run `warmup` of `slots` untimed, or more, then all; milliseconds of each of these. The arm rests afterwards."""
    times = arm.time_ms(slots, warmup=warmup)
    arm.rest()
    return times


def turn_s(run_s: float, runs: int) -> float:
    """About how long a turn of so many timed runs takes, where one takes `run_s` seconds."""
    return max(WARMUP * run_s, SETTLE_S) + runs * run_s
