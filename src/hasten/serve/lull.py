"""Lets arrivals gather for a moment while requests are refused and engines share the core of the server.

Each wake-up of the server takes the core away from an engine and finds its own memory out of the caches; that is most
of what a refusal costs. While all engines are busy, nothing that arrives could start before one of them is done. So
the server sleeps until then, or for a moment that a refusal may well take, and takes what has arrived together. Network
drivers do the same with interrupts (Mogul and Ramakrishnan, "Eliminating receive livelock in an interrupt-driven
kernel", 1997), and as these it stops gathering in a burst: where many came in one turn, the next are there already.
Nor does it sleep on what has been read and not been decided about: that would wait for two sleeps.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Sequence

__all__ = ["MANY", "Lull"]

# So many refusals have shared the wake-up of their turn well enough.
MANY = 4


class Lull:
    """Sleeps for at most `seconds` at a time; `descriptors` are those on which engines answer, of all that there are
    now: without any there is nobody to spare. `pending` says whether anybody waits for a decision. Lives on the event
    loop, which it holds.
    """

    def __init__(self, seconds: float, descriptors: Callable[[], Sequence[int]], pending: Callable[[], bool]) -> None:
        self._most_ms = seconds * 1e3
        self._descriptors = descriptors
        self._pending = pending
        self._planned = False

    def plan(self, refused: int) -> None:
        """Sleep as soon as what is ready has been done and written, unless so many were `refused` together that others
        of their burst wait.
        """
        if not self._planned and refused < MANY:
            self._planned = True
            # Transports write at the end of a turn of the loop, so not in this one.
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._sleep)

    def _sleep(self) -> None:
        self._planned = False
        descriptors = self._descriptors()
        if not descriptors or self._pending():
            return
        # Not select(), which knows no descriptor above 1023.
        engines = select.poll()
        for descriptor in descriptors:
            engines.register(descriptor, select.POLLIN)
        engines.poll(self._most_ms)
