"""The clock protocol: whoever needs time is given a clock, so that tests can move it by hand.

`hasten.testing.ManualClock` is the other implementation. Pure code does not take a clock at all: it takes `now`.
"""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "MonotonicClock"]


class Clock(Protocol):
    """Seconds on a scale that never goes back. The origin means nothing."""

    def now(self) -> float:
        """Return the time in seconds."""
        ...


class MonotonicClock:
    """The operating system's monotonic clock."""

    def now(self) -> float:
        """Return the time in seconds."""
        return time.perf_counter()
