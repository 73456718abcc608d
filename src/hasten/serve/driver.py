"""Carries the core's commands out: the desk where callers wait on one side, engines on the other.

All of it runs on the event loop; an engine calls back when it is done with a batch. Without coroutines, so that it can
be compiled (docs/decisions/0024): what is awaited stands in `hasten.serve.service`.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from collections.abc import Callable, Hashable, Sequence

from hasten.bundle.read import Bundle
from hasten.engine.confine import WorkerLimits
from hasten.errors import EngineCrashed, EngineRunError, RequestError
from hasten.serve.answers import Answers
from hasten.serve.batch import Outcome, Tensors, result_of, shape_key
from hasten.serve.choice import LaneChoice
from hasten.serve.core import (
    Announced,
    Arrived,
    Cancelled,
    Command,
    Core,
    Dispatch,
    Drain,
    EngineDown,
    EngineUp,
    Event,
    Finished,
    Refuse,
    StartInstance,
    StopInstance,
    Tick,
    Wake,
)
from hasten.serve.desk import CACHE, Desk
from hasten.serve.gather import Gather
from hasten.serve.instance import Instance
from hasten.serve.instances import Instances
from hasten.serve.lull import Lull
from hasten.serve.origin import Origin
from hasten.serve.plan import Plan
from hasten.serve.pool import Isolation, Loading
from hasten.serve.tally import Tally
from hasten.serve.ticket import Answer, Ticket
from hasten.serve.told import NEWS, Batch, Teller
from hasten.serve.waker import Waker
from hasten.spec.event import Sink
from hasten.spec.request import Parameter, Request
from hasten.wire.known import Memory

__all__ = ["Driver"]

# For how many turns of the loop arrivals may gather where the server has the only core.
_TURNS = 4
# What may make an instance free again.
_FREEING = frozenset[type[Event]]({Finished, EngineUp})


class Driver:
    """The middle of one model's service. Requests are taken while it `is_open`.

    `plan` is what the bundle and the operator want. `isolation` "process" gives each engine instance a process of its
    own within `limits`; "none" runs them in this one.
    """

    def __init__(
        self, bundle: Bundle, plan: Plan, sink: Sink | None, isolation: Isolation, limits: WorkerLimits
    ) -> None:
        self._plan = plan
        self._first = plan.variants[0]
        policy = plan.policy
        self.core = Core(policy, engine_up=False, table=plan.table)
        loading = Loading(bundle, plan.variants, plan.serving, policy.max_batch)
        self.instances = Instances(
            lambda number: Instance(loading, number, self._handle, isolation=isolation, limits=limits), policy.scale[1]
        )
        self._choice = LaneChoice(policy.lanes, plan.default_lane)
        # Of requests that name no deadline of their own.
        self._within_s = {lane.name: lane.deadline_s for lane in policy.lanes}
        # Nobody asks for the level where there is only one.
        self._has_levels = self.core.has_levels
        self._level = 0
        self._ids = itertools.count()
        self._forms: Memory[Hashable, tuple[int, Hashable]] = Memory()
        self._arrivals: list[Arrived] = []
        self._ended: list[Event] = []
        # Lanes in which somebody has been refused since an engine last took a batch.
        self._crowded: set[str] = set()
        self._gather = Gather(
            self._admit, self._gathered, enough=policy.max_batch, turns=_TURNS if plan.one_core else 0
        )
        # Engines that step back leave the server no core of its own.
        shared = isolation == "process" and bool(limits.nice)
        self._lull = Lull(self.instances.descriptors, self._is_behind) if shared else None
        self._teller = Teller(bundle.manifest.name, self._first, sink)
        self._free_since = 0.0
        self.tally = Tally()
        self.desk = _desk_of(bundle, plan, self.tally, self._teller)
        self.is_open = False
        self._waker = Waker(lambda: self._handle(Tick()))
        kept = plan.cache_bytes
        names = tuple([spec.name for spec in bundle.manifest.signature.outputs])
        self.answers = Answers(kept, names, self._teller) if kept else None

    def drain(self) -> None:
        """Tell the core of what has arrived, and that nothing more is to be taken."""
        self._admit()
        self._handle(Drain())

    def stop(self) -> None:
        """Decide about nothing more: whatever still comes is refused instead of sent to an engine that is gone."""
        self.core.draining = True
        self._waker.cancel()

    def submit(self, request: Request, answer: Answer, origin: Origin | None = None) -> Callable[[], None]:
        """Queue a request; `answer` is called once with what came of it, never before this returns, and not at all
        after the function that is returned, which gives the request's place back.

        The arrays of a `Response` are the receiver's to keep, those of a cached one to read. `origin` is what observers
        are told besides.
        """
        id_, now = next(self._ids), time.monotonic()
        origin = origin or Origin(now)
        rows, key = self._form(request)
        ticket = self.desk.take(id_, request, answer, origin, now, rows)
        try:
            arrival = self._arrival(id_, request, origin, now, rows, key)
        except RequestError as error:
            self.desk.settle(id_, error)
            return functools.partial(self._cancel, ticket)
        if self.answers is not None and self.is_open:
            if arrival.deadline is not None:
                self.desk.set_alarm(ticket, arrival.deadline - now)
            self.answers.look(request, functools.partial(self._looked_up, ticket, arrival))
        else:
            self._arrive(arrival)
        return functools.partial(self._cancel, ticket)

    def _form(self, request: Request) -> tuple[int, Hashable]:
        """How many rows a request has, and with which others they can be stacked."""
        form = request.form
        known = None if form is None else self._forms.get(form)
        if known is None:
            known = request.rows, shape_key(request.inputs)
            if form is not None:
                self._forms.keep(form, known)
        return known

    def _arrival(self, id_: int, request: Request, origin: Origin, now: float, rows: int, key: Hashable) -> Arrived:
        """What the scheduler is told of a request. Raises `RequestError` for a lane that it may not have."""
        caller = origin.caller
        lane = origin.lane = self._choice.of(origin.wish, request.priority, caller)
        within_s = request.timeout_us / 1e6 if request.timeout_us else self._within_s.get(lane)
        # What the server slept through counts, too.
        since = now if self._lull is None or not self._lull.since else self._lull.since
        deadline = None if within_s is None else since + within_s
        return Arrived(id_, rows, key, deadline, lane, caller.tenant)

    def turn_away(self, request: Request, origin: Origin) -> RequestError | None:
        """Refuse a request whose data have not arrived, where the scheduler refuses it as things stand: `request` has
        empty arrays of its shapes. None where it may be taken, or another error will be found.
        """
        if self.answers is not None or not self.is_open:
            return None
        now = time.monotonic()
        arrival = self._announced(request, origin, now)
        return None if arrival is None else self._refused_now(arrival, origin, now)

    @property
    def is_crowded(self) -> bool:
        """Whether anybody has been refused since an engine last took a batch: the next of that lane may be, too. Never
        where answers are kept, for one of them may be what is asked for.
        """
        return bool(self._crowded) and not self._ended and self.answers is None

    def refuse(self, request: Request, origin: Origin) -> RequestError | None:
        """As `turn_away`, where it `is_crowded`, of a request that has arrived: it can be told at once. Whoever came
        before it and is still to be decided about can only go before it; and nothing has made room.
        """
        if not self.is_crowded or not self.is_open:
            return None
        now = time.monotonic()
        arrival = self._announced(request, origin, now)
        if arrival is None or arrival.lane not in self._crowded:
            return None
        return self._refused_now(arrival, origin, now)

    def _announced(self, request: Request, origin: Origin, now: float) -> Arrived | None:
        try:
            return self._arrival(next(self._ids), request, origin, now, *self._form(request))
        except RequestError:
            return None

    def _refused_now(self, arrival: Arrived, origin: Origin, now: float) -> RequestError | None:
        refused: RequestError | None = None
        others: list[Command] = []
        commands = self.core.handle(Announced(arrival), now)
        for command in commands:
            if isinstance(command, Refuse) and command.id == arrival.id:
                refused = _refusal(command)
            else:
                others.append(command)
        self._carry_out(others)
        self._let_gather(commands)
        if refused is not None:
            self.tally.fail(refused.code, time.monotonic() - now)
            self._teller.refused(origin, refused)
        return refused

    def _arrive(self, arrival: Arrived) -> None:
        self._gather.plan()
        self._arrivals.append(arrival)

    def _gathered(self) -> int:
        """How many could go with the next batch."""
        return len(self._arrivals) + self.core.lanes.count

    def _is_behind(self) -> bool:
        """Whether what has been read or has ended is still to be decided about or told."""
        return self._gather.pending or self.desk.telling

    def _looked_up(self, ticket: Ticket, arrival: Arrived, key: bytes, outputs: Tensors | None) -> None:
        """Answer with what is known, or else compute it."""
        if ticket.id not in self.desk.waiting:
            # It had no time to wait for that.
            return
        ticket.key = key
        if outputs is None:
            self._arrive(arrival)
            return
        at = ticket.arrived
        ticket.ran = Batch(ticket.rows, CACHE, at, at, self._first, started=at, finished=at)
        self.desk.settle(ticket.id, outputs)

    def _admit(self) -> None:
        """Tell the core of all that arrived and ended meanwhile, so that it can go as one batch."""
        # Who left at once is not told of.
        waiting = self.desk.waiting
        arrivals = [event for event in self._arrivals if event.id in waiting]
        ended, self._arrivals, self._ended = self._ended, [], []
        if arrivals or ended:
            now = time.monotonic()
            if ended and not self.core.free:
                self._free_since = now
            commands = self.core.arrive(arrivals, now, ended)
            self._carry_out(commands)
            # Only who was not refused needs an alarm.
            for event in arrivals:
                ticket = waiting.get(event.id)
                if event.deadline is not None and ticket is not None and ticket.alarm is None:
                    self.desk.set_alarm(ticket, event.deadline - now)
            self._let_gather(commands)

    def _let_gather(self, commands: Sequence[Command]) -> None:
        """Where somebody was refused and no engine is free, more may come before the next turn."""
        if self._lull is None or self.core.free:
            return
        refused = sum([isinstance(command, Refuse) for command in commands])
        if refused:
            self._lull.plan(refused)

    def _handle(self, event: Event) -> None:
        now, kind = time.monotonic(), type(event)
        if kind in _FREEING and not self.core.free:
            self._free_since = now
        self._carry_out(self.core.handle(event, now))
        if kind in NEWS:
            self._teller.happened(event)

    def _carry_out(self, commands: Sequence[Command]) -> None:
        for command in commands:
            self._do(command)
        if self._has_levels and self.core.level != self._level:
            self._teller.moved(self._level, self.core.level, self._plan.variants)
            self._level = self.core.level

    def _do(self, command: Command) -> None:
        match command:
            case Dispatch(ids, rows, number, variant, closed):
                self._crowded.clear()
                now = time.monotonic()
                self._run(ids, number, Batch(rows, closed, now, self._free_since, variant, started=now))
            case Refuse(id_):
                ticket = self.desk.waiting.get(id_)
                if ticket is not None:
                    self._crowded.add(ticket.origin.lane)
                self.desk.settle(id_, _refusal(command))
            case Wake(at):
                self._waker.at(at)
            case StartInstance(number):
                self.instances.begin(number)
            case StopInstance(number):
                self.instances.end(number)

    def _run(self, ids: tuple[int, ...], number: int, ran: Batch) -> None:
        # A client that left after the dispatch still has its rows computed: the batch is already on its way.
        waiting = self.desk.waiting
        batch = [waiting[id_] for id_ in ids if id_ in waiting]
        if not batch:
            asyncio.get_running_loop().call_soon(self._handle, Finished(0.0, number))
            return
        ran.requests = len(batch)
        inputs = [ticket.request.inputs for ticket in batch]
        self.instances.run(number, ran.variant, inputs, lambda results: self._ran(batch, number, ran, results))

    def _ran(self, batch: list[Ticket], number: int, ran: Batch, results: Sequence[Outcome] | EngineCrashed) -> None:
        """Answer a batch. Only what was running fails where the engine died."""
        if isinstance(results, EngineCrashed):
            results = [EngineRunError("its process ended, and a new one is started.", code="unavailable")] * len(batch)
        now = ran.finished = time.monotonic()
        for ticket, result in zip(batch, results, strict=True):
            ticket.ran = ran
            settled = result_of(result)
            # An answer is kept also where its client did not wait for it.
            if ticket.key and ran.variant == self._first and not isinstance(settled, RequestError):
                assert self.answers is not None
                self.answers.keep(ticket.key, ticket.request, settled)
            self.desk.settle(ticket.id, settled, now)
        if not self.desk.waiting:
            # Nobody waits for the engine: those who are answered go first.
            self.desk.deliver()
        # Before any observer is told: one that fails must not keep the engine.
        up = self.instances.all[number].up
        seconds = ran.finished - ran.started
        if up and self._gather.waits:
            self._ended.append(Finished(seconds, number))
            self._gather.plan()
        else:
            self._handle(Finished(seconds, number) if up else EngineDown(number))
        answered = sum(not isinstance(result, EngineRunError) for result in results)
        if answered:
            self.tally.execute(answered, seconds)
        self._teller.ran(ran, number, failed=not answered)

    def _cancel(self, ticket: Ticket) -> None:
        if self.desk.leave(ticket):
            self._handle(Cancelled(ticket.id))


def _desk_of(bundle: Bundle, plan: Plan, tally: Tally, teller: Teller) -> Desk:
    digest = bundle.digest
    named: dict[str, dict[str, Parameter]] = {one: {"variant": one, "bundle": digest} for one in plan.variants}
    return Desk({spec.name: spec.dtype for spec in bundle.manifest.signature.outputs}, named, tally, teller)


def _refusal(command: Refuse) -> RequestError:
    return RequestError(command.message, code=command.code, retry_after_s=command.retry_after_s)
