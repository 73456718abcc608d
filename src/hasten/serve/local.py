"""The engine in this very process, for places that have no room for a second one.

A thread runs it, so that the event loop goes on. What a process of its own would bear, this one must: a crash of the
engine ends the server, memory has no bound, and an engine that hangs keeps its thread, although its batch is given up
in time and a fresh session takes its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hasten.engine.base import Session, engines
from hasten.engine.confine import WorkerLimits, ran_out_of_memory
from hasten.engine.host import pin_caller, staying_on
from hasten.engine.precedence import step_back
from hasten.errors import EngineCrashed, EngineError, EngineRunError
from hasten.serve import warmup
from hasten.serve.batch import Outcome, Tensors, parts_of, together_or_alone
from hasten.serve.events import Warmed
from hasten.serve.pool import Done, Loading

__all__ = ["LocalRunner"]

_Job = Callable[[], Any]
Sessions = dict[str, Session]


class LocalRunner:
    """Sessions of this process, one for each variant, and the thread that they belong to."""

    def __init__(self, loading: Loading, limits: WorkerLimits) -> None:
        self._loading = loading
        self._limits = limits
        self._sessions: Sessions = {}
        # Whose session the thread was pinned for, and the cores that it may have.
        self._pinned = ""
        self._cores = set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        self._jobs: queue.SimpleQueue[_Job | None] | None = None

    @property
    def pid(self) -> int | None:
        """The engine has no process of its own."""
        return None

    @property
    def descriptor(self) -> int | None:
        """None: nobody needs to be told."""
        return None

    async def start(self) -> list[Warmed]:
        """Load and warm up; returns how long that took. Raises `EngineError`."""
        await self.close()
        jobs = self._jobs = queue.SimpleQueue[_Job | None]()
        # A daemon, so that an engine that hangs does not keep the interpreter from ending.
        threading.Thread(target=_work, args=(jobs, self._limits.nice or 0), name="hasten-engine", daemon=True).start()
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[Sessions] = loop.create_future()
        watch = warmup.Stopwatch()

        def load() -> None:
            try:
                sessions = self._load(watch)
            except BaseException as error:
                _tell(loop, _settle, loaded, {}, error)
            else:
                _tell(loop, _settle, loaded, sessions, None)

        jobs.put(load)
        try:
            self._sessions = await asyncio.wait_for(loaded, self._limits.load_s)
        except TimeoutError as error:
            raise self._hang("load") from error
        return watch.found()

    def submit(self, variant: str, batch: Sequence[Tensors], done: Done) -> None:
        """Run a batch; where it fails, its requests one by one."""
        assert self._sessions and self._jobs is not None, "start it first"
        loop, session = asyncio.get_running_loop(), self._sessions[variant]
        waiting = [done]

        def give(results: Sequence[Outcome] | EngineCrashed) -> None:
            # Whichever is first: the results, or the end of patience.
            if waiting:
                alarm.cancel()
                waiting.pop()(results)

        alarm = loop.call_later(self._limits.run_s, lambda: give(self._hang("run")))

        def run() -> None:
            self._pin(variant, session)
            _tell(loop, give, _results(session, batch))

        self._jobs.put(run)

    async def close(self) -> None:
        """Let go of the sessions; their thread closes them when it is done with what it runs."""
        sessions, self._sessions = self._sessions, {}
        jobs, self._jobs = self._jobs, None
        if jobs is not None:
            for session in sessions.values():
                jobs.put(session.close)
            jobs.put(None)

    def _load(self, watch: warmup.Stopwatch) -> Sessions:
        sessions: Sessions = {}
        try:
            for id_, (model, target) in self._loading.models.items():
                with staying_on(self._cores):
                    session = sessions[id_] = engines.get(target.engine).load(model, target)
                pin_caller(session, self._cores)
                self._pinned = id_
                for batch in warmup.batches(self._loading.samples, self._loading.max_batch):
                    began = time.monotonic()
                    session.run(_stacked(batch))
                    watch.ran(id_, batch, time.monotonic() - began)
        except BaseException:
            for session in sessions.values():
                session.close()
            raise
        return sessions

    def _pin(self, variant: str, session: Session) -> None:
        if variant != self._pinned:
            pin_caller(session, self._cores)
            self._pinned = variant

    def _hang(self, op: str) -> EngineCrashed:
        return EngineCrashed(f"The engine {self._loading.engine} did not answer {op!r} in time.", code="engine_hang")


def _work(jobs: queue.SimpleQueue[_Job | None], nice: int) -> None:
    if sys.platform == "linux":
        # Elsewhere that would be the whole process.
        step_back(threading.get_native_id(), nice)
    while (job := jobs.get()) is not None:
        job()


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *values: Any) -> None:
    # A loop that has ended has nobody left who waits.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *values)


def _settle(future: asyncio.Future[Sessions], sessions: Sessions, error: BaseException | None) -> None:
    if future.done():
        # Nobody waits any more: the load took too long.
        for session in sessions.values():
            session.close()
    elif error is not None:
        future.set_exception(error if isinstance(error, EngineError) else EngineCrashed(f"Loading failed: {error}."))
    else:
        future.set_result(sessions)


def _results(session: Session, batch: Sequence[Tensors]) -> list[Outcome]:
    steps = together_or_alone(batch)
    following = next(steps)
    while True:
        try:
            following = steps.send(_outcome(session, following))
        except StopIteration as end:
            return end.value


def _outcome(session: Session, batch: Sequence[Tensors]) -> Outcome:
    try:
        return session.run(_stacked(batch))
    except Exception as error:
        # Whatever an engine throws must not end its thread.
        words = error.message if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
        return EngineRunError(words, code="out_of_memory" if ran_out_of_memory(error) else None)


def _stacked(batch: Sequence[Tensors]) -> dict[str, np.ndarray[Any, Any]]:
    """One request passes through without a copy."""
    return {name: arrays[0] if len(arrays) == 1 else np.concatenate(arrays) for name, arrays in parts_of(batch).items()}
