"""A clock that moves only when it is told to."""

from __future__ import annotations

__all__ = ["ManualClock"]


class ManualClock:
    """A `hasten.clock.Clock` for tests. `step_s` is added at each reading, for code that waits for time to pass."""

    def __init__(self, start_s: float = 0.0, step_s: float = 0.0) -> None:
        self._now = start_s
        self._step_s = step_s

    def now(self) -> float:
        """Return the time in seconds."""
        self._now += self._step_s
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the time forward."""
        self._now += seconds
