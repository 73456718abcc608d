"""Lets arrivals gather for a moment while requests are refused and engines share the core of the server.

Each wake-up of the server takes the core away from an engine and finds its own memory out of the caches; that is most
of what a refusal costs. While all engines are busy, nothing that arrives could start before one of them is done. So
the server sleeps until then, or for a moment that a refusal may well take, and takes what has arrived together. Network
drivers do the same with interrupts (Mogul and Ramakrishnan, "Eliminating receive livelock in an interrupt-driven
kernel", 1997), and as these it stops gathering in a burst: where many came in one turn, the next are there already.
Nor does it sleep on what has been read and not been answered: that would wait for two sleeps.
"""

from __future__ import annotations

import asyncio
import math
import select
import time
from collections.abc import Callable, Sequence

__all__ = ["FREE_MS", "LONGEST_MS", "MANY", "Lull"]

LONGEST_MS = 3
"""How long a sleep may be. Polling counts in whole milliseconds."""
FREE_MS = 1.2
"""Work between two sleeps that shortens none: with the longest sleep it is what a refusal may take, in milliseconds."""
MANY = 4
"""So many refusals have shared the wake-up of their turn well enough."""
# A refusal is told in the turn after its decision, and transports write at the end of that.
_TURNS = 2
# How much of the most work between two sleeps is remembered at the next: half of it after 70.
_KEPT = 0.99


class Lull:
    """Sleeps after refusals, for as long as bursts leave room. `descriptors` are those on which engines answer, of all
    that there are now: without any there is nobody to spare. `pending` says whether anybody waits for a decision or for
    what came of it, `worked` how many seconds of processor time the event loop has used; no sleep is longer than
    `longest_ms`. `since` is when the last one began, for what is read right after it and may have come then; else 0.
    Lives on the event loop, which it holds.
    """

    def __init__(
        self,
        descriptors: Callable[[], Sequence[int]],
        pending: Callable[[], bool],
        worked: Callable[[], float] = time.thread_time,
        longest_ms: int = LONGEST_MS,
    ) -> None:
        self._descriptors = descriptors
        self._pending = pending
        self._worked = worked
        self._longest_ms = longest_ms
        # Turns of the loop until it sleeps, 0 where it does not mean to.
        self._turns = 0
        # How many were refused in this turn.
        self._refused = 0
        # What had been worked when the last sleep ended, and the most of it between two sleeps.
        self._woke = worked()
        self._most_ms = 0.0
        self.since = 0.0

    def plan(self, refused: int) -> None:
        """So many were `refused`. Sleep as soon as what is ready has been done and written, unless they were so many in
        one turn that others of their burst wait.
        """
        planned, self._turns = self._turns > 0, _TURNS
        self._refused += refused
        if not planned:
            asyncio.get_running_loop().call_soon(self._pass)

    def _pass(self) -> None:
        """A turn has passed."""
        self._turns -= 1
        refused, self._refused = self._refused, 0
        if refused >= MANY:
            self._turns = 0
        elif self._turns:
            asyncio.get_running_loop().call_soon(self._pass)
        else:
            self._sleep()

    def _sleep(self) -> None:
        descriptors = self._descriptors()
        if not descriptors or self._pending():
            return
        # More would make no difference; and before the first refusal after an hour lies the work of that hour.
        work_ms = min((self._worked() - self._woke) * 1e3, self._longest_ms + FREE_MS)
        self._most_ms = max(work_ms, _KEPT * self._most_ms)
        # Not select(), which knows no descriptor above 1023.
        engines = select.poll()
        for descriptor in descriptors:
            engines.register(descriptor, select.POLLIN)
        self.since = time.monotonic()
        # What has gathered will take as much work as it did lately.
        engines.poll(max(1, self._longest_ms - max(0, math.ceil(self._most_ms - FREE_MS))))
        self._woke = self._worked()
        asyncio.get_running_loop().call_soon(self._taken)

    def _taken(self) -> None:
        """All that came during the sleep has been read."""
        # By uvloop. Python's own loop reads only after this, and deadlines count from then.
        self.since = 0.0
