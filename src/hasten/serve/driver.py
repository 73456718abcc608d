"""Carries the core's commands out: asyncio futures on one side, engines on the other.

All of it runs on the event loop; an engine calls back when it is done with a batch.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hasten.bundle.manifest import Manifest
from hasten.bundle.read import Bundle
from hasten.engine.confine import WorkerLimits
from hasten.errors import EngineCrashed, EngineRunError, RequestError
from hasten.serve.batch import Outcome, Tensors
from hasten.serve.core import (
    Arrived,
    Cancelled,
    Command,
    Core,
    Dispatch,
    Drain,
    EngineDown,
    Event,
    Finished,
    Policy,
    Refuse,
    Tick,
    Wake,
)
from hasten.serve.instance import Instance
from hasten.serve.pool import Isolation, Loading
from hasten.spec.event import Served
from hasten.spec.request import Request, Response
from hasten.spec.serving import Serving
from hasten.spec.tensor import DType

__all__ = ["ModelService"]

_PATH = re.compile(r"(?<![\w.])(?:/[\w.+-]+){2,}(?::\d+)?")


@dataclass(slots=True)
class _Ticket:
    request: Request
    answer: asyncio.Future[Tensors]
    arrived: float
    started: float = 0.0


class ModelService:
    """One bundle being served. Start it on a running event loop; `infer` awaits the answer.

    `isolation` "process" gives each engine instance a process of its own within `limits`; "none" runs them in this one.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        queue_capacity: int = 256,
        sink: Callable[[Served], None] | None = None,
        isolation: Isolation = "process",
        limits: WorkerLimits | None = None,
    ) -> None:
        self.bundle = bundle
        self.variant = bundle.manifest.picked
        manifest = bundle.manifest
        chosen = manifest.serving_of(self.variant)
        policy = _policy(manifest, chosen, queue_capacity)
        self._core = Core(policy, engine_up=False)
        target = chosen.one(bundle.entry(self.variant).variant.target)
        loading = Loading(bundle, self.variant, target, policy.max_batch)
        self._instances = [
            Instance(loading, number, self._handle, isolation=isolation, limits=limits or WorkerLimits())
            for number in range(chosen.instances)
        ]
        self._ids = itertools.count()
        self._tickets: dict[int, _Ticket] = {}
        self._sink = sink
        self._open = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._dtypes: dict[str, DType] = {spec.name: spec.dtype for spec in manifest.signature.outputs}
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def ready(self) -> bool:
        """Whether requests are taken and an instance is up."""
        return self._open and any(instance.up for instance in self._instances)

    @property
    def engine_pid(self) -> int | None:
        """Process id of the first engine instance, where it has one of its own."""
        return self._instances[0].pid

    async def start(self) -> None:
        """Load, warm up, become ready. Raises `EngineError` where the bundle does not load here."""
        for instance in self._instances:
            await instance.start()
        self._open = True

    async def infer(self, request: Request) -> Response:
        """Queue a request and await its answer. Raises `RequestError`; a cancelled caller frees its place."""
        id_, now = next(self._ids), time.monotonic()
        ticket = _Ticket(request, asyncio.get_running_loop().create_future(), now)
        self._tickets[id_] = ticket
        self._idle.clear()
        deadline = now + request.timeout_us / 1e6 if request.timeout_us else None
        alarm = None if deadline is None else self._alarm(id_, deadline - now)
        try:
            self._handle(Arrived(id_, request.rows, _shape_key(request), deadline))
            outputs = await ticket.answer
        except asyncio.CancelledError:
            self._handle(Cancelled(id_))
            raise
        finally:
            if alarm is not None:
                alarm.cancel()
            del self._tickets[id_]
            if not self._tickets:
                self._idle.set()
        return self._response(request, outputs)

    async def drain(self) -> None:
        """Refuse what comes, finish what waits and runs."""
        self._open = False
        self._handle(Drain())
        await self._idle.wait()

    async def close(self) -> None:
        """End the engine, at once even where it hangs. Call `drain` first to lose nothing."""
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*(instance.close() for instance in self._instances))
        self._settle_all(tuple(self._tickets), RequestError("The server stopped.", code="unavailable"))

    def _handle(self, event: Event) -> None:
        for command in self._core.handle(event, time.monotonic()):
            self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        match command:
            case Dispatch(ids, _, number):
                self._run(ids, number)
            case Refuse(id_, code, message, retry_after_s):
                self._settle(id_, RequestError(message, code=code, retry_after_s=retry_after_s))
            case Wake(at):
                self._wake(at)

    def _wake(self, at: float) -> None:
        """Keep one timer, for the earliest time asked for; the tick asks again for what comes after."""
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        # By a difference: the loop's own clock may count from another origin.
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - time.monotonic()), self._tick)

    def _tick(self) -> None:
        # A loop that counts in milliseconds may be early: then the core asks again for the same time, and must get it.
        self._timer = None
        self._handle(Tick())

    def _run(self, ids: tuple[int, ...], number: int) -> None:
        started = time.monotonic()
        # A client that left after the dispatch still has its rows computed: the batch is already on its way.
        batch = [self._tickets[id_] for id_ in ids if id_ in self._tickets]
        if not batch:
            asyncio.get_running_loop().call_soon(self._handle, Finished(0.0, number))
            return
        inputs = [ticket.request.inputs for ticket in batch]
        self._instances[number].run(inputs, lambda results: self._ran(batch, number, started, results))

    def _ran(
        self, batch: list[_Ticket], number: int, started: float, results: Sequence[Outcome] | EngineCrashed
    ) -> None:
        """Answer a batch. Only what was running fails where the engine died."""
        if isinstance(results, EngineCrashed):
            results = [EngineRunError("its process ended, and a new one is started.", code="unavailable")] * len(batch)
        for ticket, result in zip(batch, results, strict=True):
            ticket.started = started
            _answer(ticket, result)
        finished = time.monotonic()
        # Before any observer is told: one that fails must not keep the engine.
        up = self._instances[number].up
        self._handle(Finished(finished - started, number) if up else EngineDown(number))
        answered = [
            ticket for ticket, result in zip(batch, results, strict=True) if not isinstance(result, EngineRunError)
        ]
        self._tell(answered, started, finished)

    def _alarm(self, id_: int, in_s: float) -> asyncio.TimerHandle:
        """Answer on time also while the request runs; the core sees to it that it does not start too late."""
        error = RequestError("The deadline passed.", code="deadline")
        return asyncio.get_running_loop().call_later(in_s, self._settle, id_, error)

    def _settle_all(self, ids: tuple[int, ...], error: RequestError) -> None:
        for id_ in ids:
            self._settle(id_, error)

    def _settle(self, id_: int, error: RequestError) -> None:
        ticket = self._tickets.get(id_)
        if ticket is not None and not ticket.answer.done():
            ticket.answer.set_exception(error)

    def _tell(self, batch: list[_Ticket], started: float, finished: float) -> None:
        if self._sink is None:
            return
        for ticket in batch:
            self._sink(
                Served(
                    model=self.bundle.manifest.name,
                    variant=self.variant,
                    batch=len(batch),
                    queue_s=started - ticket.arrived,
                    engine_s=finished - started,
                )
            )

    def _response(self, request: Request, outputs: Tensors) -> Response:
        names = request.outputs or tuple(self._dtypes)
        return Response(
            model=request.model,
            version=request.version,
            id=request.id,
            outputs={name: outputs[name] for name in names},
            dtypes=self._dtypes,
            parameters={"variant": self.variant},
        )


def _policy(manifest: Manifest, chosen: Serving, queue_capacity: int) -> Policy:
    """The bundle's serving defaults, within the batch that was proven harmless."""
    return Policy(
        instances=chosen.instances,
        max_batch=min(chosen.max_batch, manifest.max_batch),
        max_delay_s=chosen.max_delay_ms / 1e3,
        queue_capacity=queue_capacity,
    )


def _answer(ticket: _Ticket, result: Outcome) -> None:
    if ticket.answer.done():
        return
    if isinstance(result, EngineRunError):
        # Runtimes name source files where they were built; clients are told what happened, not where.
        words = _PATH.sub("…", result.message)
        lost = result.code in ("unavailable", "out_of_memory")
        ticket.answer.set_exception(
            RequestError(
                f"The engine failed: {words}",
                code="unavailable" if lost else "internal",
                retry_after_s=1.0 if lost else None,
            )
        )
    else:
        ticket.answer.set_result(result)


def _shape_key(request: Request) -> tuple[object, ...]:
    """Equal for requests that differ in their number of rows only.

    A request whose inputs disagree on the number of rows is like no other: its outputs could not be told apart.
    """
    leading = {array.shape[0] if array.ndim else -1 for array in request.inputs.values()}
    if len(leading) != 1 or -1 in leading:
        return (object(),)
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in sorted(request.inputs.items()))
