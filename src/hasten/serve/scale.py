"""How many instances: fast up on the work that waits and comes, slow down after long rest. Pure.

Two speeds after InferLine (Crankshaw et al., SoCC 2020): a queue that grows is answered in one window, an instance is
given up only when the busiest window of a long time needed fewer.
"""

from __future__ import annotations

import math
from collections import deque

from hasten.serve.policy import Policy

__all__ = ["Scaler"]

# Instances are planned to be busy for this share of their time: queues explode towards 1.
_BUSY = 0.8


class Scaler:
    """Takes one observation a window and says how many instances there should be."""

    def __init__(self, policy: Policy) -> None:
        self._least, self._most = policy.scale
        self._idle_s = policy.idle_s
        self._window_s = policy.window_s
        self._seen: deque[tuple[float, int]] = deque()
        self._moved: float | None = None

    def target(self, now: float, instances: int, load: float, waiting_s: float) -> int:
        """Return the number wanted. `load` is the work that came, in engine seconds per second; `waiting_s` the engine
        seconds that wait.
        """
        # What waits is to be worked off within a window, beside what comes.
        needed = math.ceil((load + waiting_s / self._window_s) / _BUSY - 1e-9)
        needed = min(max(needed, self._least), self._most)
        self._moved = now if self._moved is None else self._moved
        self._seen.append((now, needed))
        while self._seen[0][0] <= now - self._idle_s:
            self._seen.popleft()
        if needed > instances:
            self._moved = now
            return needed
        busiest = max(seen for _, seen in self._seen)
        if busiest < instances and now - self._moved >= self._idle_s:
            # One at a time, and then as long a rest again.
            self._moved = now
            return instances - 1
        return instances
