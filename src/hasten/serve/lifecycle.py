"""How a server ends: not ready at once, still serving for a while, then closed to newcomers, finished, gone.

A load balancer follows readiness with some delay; what it sends until then is served, and connections are asked to
close with each answer. A second request to stop ends everything at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol

__all__ = ["Door", "Finisher", "Lifecycle"]


class Door(Protocol):
    """Where newcomers come in."""

    def close(self) -> None:
        """Take no more of them."""
        ...


class Finisher(Protocol):
    """Connections that end one by one; `draining` asks each to end with its answer."""

    draining: bool

    async def finish(self) -> None:
        """Return when all have ended."""
        ...


class Lifecycle:
    """Waits until it is asked to stop, then drains. Lives on one event loop."""

    def __init__(self, parts: Iterable[Finisher], *, delay_s: float, grace_s: float) -> None:
        self._parts = list(parts)
        self._delay_s = delay_s
        self._grace_s = grace_s
        self._asked = asyncio.Event()
        self._forced = asyncio.Event()
        self.draining = False

    def stop(self) -> None:
        """Ask to stop; the second time, to stop at once."""
        if self.draining:
            self._forced.set()
        self.draining = True
        for part in self._parts:
            part.draining = True
        self._asked.set()

    async def begin(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do what comes before serving; False where it was given up because it was time to stop. Raises as it does."""
        doing, asked = asyncio.ensure_future(work), asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait({doing, asked}, return_when=asyncio.FIRST_COMPLETED)
            if doing.done():
                doing.result()
                return True
            return False
        finally:
            asked.cancel()
            doing.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await doing

    async def run(self, door: Door) -> None:
        """Return when the server has stopped: everything answered, or the grace is over, or it was asked twice."""
        await self._asked.wait()
        await self._unless_forced(self._forced.wait(), self._delay_s)
        door.close()
        await self._unless_forced(asyncio.gather(*(part.finish() for part in self._parts)), self._grace_s)

    async def _unless_forced(self, work: object, within_s: float) -> None:
        waits = {asyncio.ensure_future(work), asyncio.ensure_future(self._forced.wait())}  # type: ignore[arg-type]
        try:
            await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
