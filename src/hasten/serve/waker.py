"""The one timer of a driver: for the earliest of the times that its scheduler asks for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["Waker"]


class Waker:
    """Calls `tick` when it is time, on the event loop; who is woken asks again for what comes after. Times are seconds
    of `time.monotonic`.
    """

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0

    def at(self, at: float) -> None:
        """Wake at this time, if not before."""
        if self._timer is not None:
            if self._at <= at:
                return
            self._timer.cancel()
        self._at = at
        # By a difference: the loop's own clock may count from another origin.
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - time.monotonic()), self._wake)

    def cancel(self) -> None:
        """Wake nobody any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self) -> None:
        # A loop that counts in milliseconds may be early: then the same time is asked for again, and must be given.
        self._timer = None
        self._tick()
