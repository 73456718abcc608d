"""How many cores does this machine really give right now? Asked before each round of a measurement.

A virtual machine may be given one core's worth of time for its two cores, for minutes, without a trace in any
counter that it can read; then everything that runs on two threads slows down, and engines that spin slow down
most. A ratio from such a moment is true for that moment only. So a round waits, within its patience, until the
machine gives what it promises, and what had to be measured under contention says so.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from hasten.engine.host import environment

__all__ = ["Watch", "cores_given"]

# Hashing releases the interpreter's lock and touches no memory to speak of: two threads take as long as one on
# two cores.
_WORK = bytes(2**20)
_REPEATS = 3
_MOST = 8
# Less than this share of the cores is contention. Sound virtual machines measure 0.85 and more.
_ENOUGH = 0.75
_PAUSE_S = 0.25


def cores_given() -> float:
    """Return how many cores' worth of work gets done when every core is asked to work, from about 10 ms of
    hashing.
    """
    cores = min(environment().cores_logical, _MOST)
    if cores == 1:
        return 1.0
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(_hash, range(cores)))
        alone = min(_timed(lambda: _hash(0)) for _ in range(_REPEATS))
        together = min(_timed(lambda: list(pool.map(_hash, range(cores)))) for _ in range(_REPEATS))
    return cores * alone / together


class Watch:
    """Waits for a quiet machine, up to `patience_s` seconds in all, and counts the rounds that did not get one."""

    def __init__(
        self,
        patience_s: float,
        *,
        probe: Callable[[], float] = cores_given,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._patience_s = patience_s
        self._probe = probe
        self._pause = pause
        self._enough = _ENOUGH * min(environment().cores_logical, _MOST)
        self.waited_s = 0.0

    @property
    def spent(self) -> bool:
        """Whether patience has run out."""
        return self.waited_s >= self._patience_s

    def quiet_now(self) -> bool:
        """Whether the machine gives its cores at this moment; waits for nothing."""
        return self._probe() >= self._enough

    def round_is_quiet(self) -> bool:
        """Wait until the machine gives its cores; False where patience ran out first."""
        while not self.quiet_now():
            if self.waited_s >= self._patience_s:
                return False
            self._pause(_PAUSE_S)
            self.waited_s += _PAUSE_S
        return True


def _hash(_: int) -> None:
    hashlib.sha256(_WORK).digest()


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
