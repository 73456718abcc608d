"""Several callers at once on one session, timed together: what throughput is measured with."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from hasten.engine.base import Session, Tensors
from hasten.errors import EngineRunError

__all__ = ["race"]


def race(session: Session, samples: Sequence[Tensors], *, callers: int, runs: int) -> int:
    """Run `samples` in turn, `runs` times in all, from `callers` threads; nanoseconds of the wall clock.

    The clock starts when all callers have been started and stops when the last one is done; a caller takes the next run
    when its last has ended (a closed loop). Raises what the first failing caller met.
    """
    if callers < 1 or runs < 1 or not samples:
        raise EngineRunError("Nothing to run.", remedy="Give samples, callers and runs, one at least of each.")
    course = _Course(session, samples, runs)
    gate = threading.Event()
    threads = [threading.Thread(target=course.run_until_done, args=(gate,)) for _ in range(callers)]
    for thread in threads:
        thread.start()
    started = time.perf_counter_ns()
    gate.set()
    for thread in threads:
        thread.join()
    if course.failures:
        raise course.failures[0]
    return time.perf_counter_ns() - started


class _Course:
    """The runs that are still to be done, handed out one by one."""

    def __init__(self, session: Session, samples: Sequence[Tensors], runs: int) -> None:
        self._session = session
        self._samples = samples
        # One bytecode hands out a number, so that no lock is needed and no number comes twice.
        self._numbers = iter(range(runs))
        self.failures: list[Exception] = []

    def run_until_done(self, gate: threading.Event) -> None:
        gate.wait()
        try:
            for number in self._numbers:
                if self.failures:
                    return
                self._session.run(self._samples[number % len(self._samples)])
        except Exception as error:
            self.failures.append(error)
