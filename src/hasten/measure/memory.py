"""Peak memory, load time and cold start of a fresh process that loads a variant and runs it a few times.

The peak counts interpreter, runtime, model and activations, as an operator of the machine would see them. A cold start
is what a client of a server that scales from zero waits for: the process, its imports, the load, and the first answer,
which is slower than those that follow. Files are in the page cache, because the variant was loaded before.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from hasten.data.feed import feed, sample_for
from hasten.measure.base import Pair
from hasten.spec.measurement import Figure

__all__ = ["MemoryMeter"]

_RUNS = 5


class MemoryMeter:
    """Gives `memory_peak_mb`, `load_ms` and `cold_start_ms`, all from one fresh process."""

    name = "memory"
    names = ("memory_peak_mb", "load_ms", "cold_start_ms")

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now

    def measure(self, pair: Pair) -> dict[str, Figure]:
        """Load, run, read the peak. One observation each, hence no interval."""
        signature = pair.candidate.signature
        inputs = feed(signature, [sample_for(signature, pair.data, 0)])
        started = self._now()
        with pair.fresh() as arm:
            arm.run(inputs)
            cold = (self._now() - started) * 1e3
            for _ in range(_RUNS - 1):
                arm.run(inputs)
            peak, load = arm.peak_memory_mb(), arm.load_ms
        return {
            "memory_peak_mb": Figure(value=peak, low=None, high=None, n=1, method="peak resident set"),
            "load_ms": Figure(value=load, low=None, high=None, n=1, method="model load in a fresh process"),
            "cold_start_ms": Figure(
                value=cold, low=None, high=None, n=1, method="process start to first answer, files in the page cache"
            ),
        }
