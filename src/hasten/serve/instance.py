"""One engine of a model, and how it is brought back when it is lost.

What ran when it died fails; what waits keeps waiting while the first restart is under way. Restarts are spaced by the
breaker, for this instance alone: no other instance or model is touched.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from hasten.engine.confine import WorkerLimits
from hasten.errors import EngineCrashed, EngineError, EngineRunError
from hasten.serve.batch import Outcome, Tensors
from hasten.serve.breaker import Breaker
from hasten.serve.core import EngineDown, EngineLost, EngineUp, Event
from hasten.serve.local import LocalRunner
from hasten.serve.pool import Done, Isolation, Loading, ProcessRunner, Runner

__all__ = ["Instance"]

_log = logging.getLogger("hasten.serve")


class Instance:
    """One engine. `tell` hears of everything that happens to it outside of a batch."""

    def __init__(
        self,
        loading: Loading,
        number: int,
        tell: Callable[[Event], None],
        *,
        isolation: Isolation,
        limits: WorkerLimits,
    ) -> None:
        self.up = False
        self.restarts = 0
        self._number = number
        self._tell = tell
        self._breaker = Breaker()
        self._coming_back: asyncio.Task[None] | None = None
        self._runner: Runner = (
            ProcessRunner(loading, limits, self._died) if isolation == "process" else LocalRunner(loading, limits)
        )

    @property
    def pid(self) -> int | None:
        """Process id of the engine, where it has a process of its own."""
        return self._runner.pid

    @property
    def descriptor(self) -> int | None:
        """What becomes readable when the engine has something to say, where it has a process of its own."""
        return self._runner.descriptor

    async def start(self) -> None:
        """Load and warm up for the first time. Raises `EngineError`."""
        try:
            warmed = await self._runner.start()
        except EngineError:
            # What did not start is not to keep memory or a processor.
            await self._runner.close()
            raise
        for found in warmed:
            self._tell(found)
        self.up = True
        self._tell(EngineUp(self._number))

    def summon(self) -> None:
        """Start in the background, as often as it takes; `tell` hears how that goes."""
        self._coming_back = asyncio.get_running_loop().create_task(self._come_up())

    def run(self, variant: str, batch: Sequence[Tensors], done: Done) -> None:
        """Run a batch with a variant and call `done` with each request's outcome, or with the crash that took them all.

        `up` is False at that call where the engine takes no further batch for now.
        """

        def ran(results: Sequence[Outcome] | EngineCrashed) -> None:
            trouble = results if isinstance(results, EngineCrashed) else _exhausted(results)
            if trouble is None:
                self._breaker.answered()
            else:
                self._lose(trouble)
            done(results)

        self._runner.submit(variant, batch, ran)

    async def close(self) -> None:
        """End the engine at once."""
        self.up = False
        if self._coming_back is not None:
            self._coming_back.cancel()
        await self._runner.close()

    def _died(self, error: EngineCrashed) -> None:
        """It ended while it was idle."""
        if self.up:
            self._lose(error)
            self._tell(EngineDown(self._number))

    def _lose(self, trouble: EngineError) -> None:
        self.up = False
        _log.warning("An engine is started anew: %s", trouble.message)
        self._coming_back = asyncio.get_running_loop().create_task(self._come_back())

    async def _come_up(self) -> None:
        try:
            await self.start()
        except EngineError as error:
            _log.warning("An engine did not start: %s", error.message)
            await self._come_back(refused=True)

    async def _come_back(self, *, refused: bool = False) -> None:
        while not self.up:
            pause = self._breaker.crashed(time.monotonic())
            if refused or self._breaker.state == "open":
                self._tell(EngineLost(pause, self._number))
            await asyncio.sleep(pause)
            self._breaker.waited()
            try:
                await self.start()
            except EngineError as error:
                refused = True
                _log.warning("An engine did not start: %s", error.message)
        self.restarts += 1


def _exhausted(results: Sequence[Outcome]) -> EngineRunError | None:
    """The error of a batch that had no memory: allocators keep what they got, so that hardly anything runs after it."""
    for result in results:
        if isinstance(result, EngineRunError) and result.code == "out_of_memory":
            return result
    return None
