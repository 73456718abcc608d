"""When an engine that died may be started again. Pure: time comes in as an argument, in seconds.

    state      event                    next state
    closed     crash                    closed       (a short pause, longer with each crash)
    closed     crash, the fifth in 60 s open
    open       the pause is over        half-open    (one start is tried)
    half-open  crash                    open         (the pause doubles)
    half-open  a batch was answered     closed

A start that fails counts as a crash. The pause is short again after a minute without crashes.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

__all__ = ["Breaker", "State"]

State = Literal["closed", "open", "half-open"]
_Happening = Literal["crash", "crash too many", "pause over", "answered"]

_TABLE: dict[tuple[State, _Happening], State] = {
    ("closed", "crash"): "closed",
    ("closed", "crash too many"): "open",
    ("open", "pause over"): "half-open",
    ("half-open", "crash"): "open",
    ("half-open", "crash too many"): "open",
    ("half-open", "answered"): "closed",
}


class Breaker:
    """The breaker of one engine instance. Opens at `crashes` within `within_s`, first for `pause_s` seconds."""

    def __init__(
        self, *, crashes: int = 5, within_s: float = 60.0, pause_s: float = 10.0, longest_s: float = 120.0
    ) -> None:
        self.state: State = "closed"
        self._crashes: deque[float] = deque(maxlen=crashes)
        self._within_s = within_s
        self._first_pause_s, self._pause_s, self._longest_s = pause_s, pause_s, longest_s

    def crashed(self, now: float) -> float:
        """The engine died, or did not start. Return the seconds to wait before the next start; 0: start at once."""
        while self._crashes and now - self._crashes[0] >= self._within_s:
            self._crashes.popleft()
        if self.state == "closed" and not self._crashes:
            self._pause_s = self._first_pause_s
        self._crashes.append(now)
        self._move("crash too many" if len(self._crashes) == self._crashes.maxlen else "crash")
        if self.state == "open":
            pause, self._pause_s = self._pause_s, min(2 * self._pause_s, self._longest_s)
            return pause
        recent = len(self._crashes)
        return 0.0 if recent == 1 else 0.1 * 2 ** (recent - 1)

    def waited(self) -> None:
        """The seconds are over."""
        self._move("pause over")

    def answered(self) -> None:
        """The engine answered a batch."""
        self._move("answered")

    def _move(self, happening: _Happening) -> None:
        # What the table does not name changes nothing.
        self.state = _TABLE.get((self.state, happening), self.state)
