"""Puts a decision off while more arrives, on machines where that costs no engine any time.

On a single core an engine cannot run before the server sleeps, whatever it was sent. So the server first takes what is
ready, again and again until nothing new has come, and then decides about all of it: batches are larger, and the engine
wakes less often. With a second core the engine would run meanwhile, and nothing is put off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Gather"]


class Gather:
    """Calls `then` once for all that was planned: at the end of the turn of the loop in which it was, or up to `turns`
    turns later, when a turn brought nothing new or `enough` waits, as `waiting` tells. Lives on the event loop.
    """

    def __init__(self, then: Callable[[], None], waiting: Callable[[], int], *, enough: int, turns: int) -> None:
        self._then = then
        self._waiting = waiting
        self._enough = enough
        self._turns = turns
        self._left = 0
        self._news = False
        self._planned = False

    @property
    def waits(self) -> bool:
        """Whether anything is put off beyond the turn in which it was planned."""
        return self._turns > 0

    @property
    def pending(self) -> bool:
        """Whether a decision is still to come."""
        return self._planned

    def plan(self) -> None:
        """Something new is to be decided about, soon."""
        self._news = True
        if not self._planned:
            self._planned = True
            self._left = self._turns
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        if self._left and self._news and self._waiting() < self._enough:
            self._left -= 1
            self._news = False
            # A loop asks for what is ready between two turns.
            asyncio.get_running_loop().call_soon(self._look)
            return
        self._planned = False
        self._then()
