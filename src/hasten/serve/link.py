"""An engine worker on the event loop: one question at a time, and a call when the answer is there.

The loop watches the worker's socket, so that a batch costs one wake-up and no thread. A worker that does not answer in
time is ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from hasten.engine.frames import Frame, Parts
from hasten.engine.process import WorkerProcess
from hasten.errors import EngineCrashed, EngineError, EngineRunError

__all__ = ["WorkerLink"]

Answered = Callable[[Frame | EngineError], None]


class WorkerLink:
    """A worker process and who waits for its answer. `died` is called where it ends while nobody waits.

    After a crash or a hang nothing more can be asked; `close` it.
    """

    def __init__(self, process: WorkerProcess, died: Callable[[EngineCrashed], None]) -> None:
        self._process = process
        self._died = died
        self._loop = asyncio.get_running_loop()
        self._op = "wait"
        self._answered: Answered | None = None
        self._due = self._timer_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop.add_reader(process.fileno(), self._readable)
        self._lost: EngineCrashed | None = None

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    @property
    def descriptor(self) -> int | None:
        """What becomes readable when there is an answer; None once the worker is gone."""
        return None if self._lost is not None else self._process.fileno()

    def ask(
        self,
        op: str,
        answered: Answered,
        *,
        timeout_s: float,
        args: Mapping[str, Any] | None = None,
        parts: Parts | None = None,
    ) -> None:
        """Ask, and call `answered` from the loop with a frame or an error; the frame's tensors last as long as the
        call. `EngineCrashed` says that the worker is gone, or was ended after `timeout_s` seconds.
        """
        assert self._answered is None, "one question at a time"
        self._op, self._answered = op, answered
        if self._lost is not None:
            self._loop.call_soon(self._give, self._lost)
            return
        self._watch(timeout_s)
        try:
            self._process.send(op, args, parts)
        except EngineCrashed as error:
            self._loop.call_soon(self._gone, error)
        except EngineError as error:
            self._loop.call_soon(self._give, error)
        except (TypeError, ValueError) as error:
            refused = EngineRunError(f"The batch cannot be put together: {error}.")
            self._loop.call_soon(self._give, refused)

    async def asked(
        self, op: str, *, timeout_s: float, args: Mapping[str, Any] | None = None, parts: Parts | None = None
    ) -> Mapping[str, Any]:
        """Ask and await the arguments of the answer. Raises `EngineError`."""
        future: asyncio.Future[Mapping[str, Any]] = self._loop.create_future()

        def answered(outcome: Frame | EngineError) -> None:
            if future.done():
                return
            if isinstance(outcome, EngineError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome.args)

        self.ask(op, answered, timeout_s=timeout_s, args=args, parts=parts)
        return await future

    def kill(self) -> None:
        """End the worker at once; whoever waits is told as of any crash."""
        self._process.kill()

    async def close(self) -> None:
        """End the worker and wait for its end, without holding up the loop. Nobody is told."""
        self._answered = None
        if self._lost is None:
            self._lost = EngineCrashed("The engine was closed.")
            self._unwatch()
        await asyncio.to_thread(self._process.close)

    def _readable(self) -> None:
        try:
            answer = self._process.receive(self._op)
        except EngineCrashed as error:
            self._gone(error)
        except EngineError as error:
            self._give(error)
        else:
            if answer is not None:
                self._give(answer)

    def _give(self, outcome: Frame | EngineError) -> None:
        answered, self._answered = self._answered, None
        self._op = "wait"
        if answered is not None:
            answered(outcome)

    def _gone(self, error: EngineCrashed) -> None:
        if self._lost is not None:
            return
        self._lost = error
        self._unwatch()
        self._process.kill()
        if self._answered is None:
            self._died(error)
        else:
            self._give(error)

    def _watch(self, timeout_s: float) -> None:
        """One timer for many questions: it is set anew when it fires, not at each question."""
        self._due = self._loop.time() + timeout_s
        if self._timer is not None and self._timer_at > self._due:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._set_timer()

    def _set_timer(self) -> None:
        self._timer_at = self._due
        self._timer = self._loop.call_at(self._due, self._overdue)

    def _overdue(self) -> None:
        self._timer = None
        if self._answered is None:
            return
        if self._loop.time() < self._due:
            self._set_timer()
        else:
            self._gone(self._process.hang(self._op))

    def _unwatch(self) -> None:
        self._loop.remove_reader(self._process.fileno())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
