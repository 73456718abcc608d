"""Peak memory and load time of a fresh process that loads a variant and runs it a few times.

The peak counts interpreter, runtime, model and activations, as an operator of the machine would see them.
"""

from __future__ import annotations

from hasten.data.feed import feed, sample_for
from hasten.measure.base import Pair
from hasten.spec.measurement import Figure

__all__ = ["MemoryMeter"]

_RUNS = 5


class MemoryMeter:
    """Gives `memory_peak_mb` and `load_ms`, each from one fresh process."""

    name = "memory"
    names = ("memory_peak_mb", "load_ms")

    def measure(self, pair: Pair) -> dict[str, Figure]:
        """Load, run, read the peak. One observation each, hence no interval."""
        with pair.fresh() as arm:
            inputs = feed(arm.signature, [sample_for(arm.signature, pair.data, 0)])
            for _ in range(_RUNS):
                arm.run(inputs)
            peak, load = arm.peak_memory_mb(), arm.load_ms
        return {
            "memory_peak_mb": Figure(value=peak, low=None, high=None, n=1, method="peak resident set"),
            "load_ms": Figure(value=load, low=None, high=None, n=1, method="model load in a fresh process"),
        }
