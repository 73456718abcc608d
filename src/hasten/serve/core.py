"""The scheduler: events in, commands out, no I/O. It joins the door, the lanes, the batcher, the ladder, the instances.

`handle(event, now)` returns what to do. The driver carries commands out and reports what happened as further events;
tests and simulations do the same with time moved by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from hasten.serve.admit import Door, refuse
from hasten.serve.batcher import Batcher, Formed
from hasten.serve.events import (
    Announced,
    Arrived,
    Cancelled,
    Command,
    Dispatch,
    Drain,
    EngineDown,
    EngineLost,
    EngineUp,
    Event,
    Finished,
    Refuse,
    StartInstance,
    StopInstance,
    Tick,
    Times,
    Wake,
    Warmed,
)
from hasten.serve.lanes import Lanes
from hasten.serve.latency import LatencyTable
from hasten.serve.outcomes import Outcomes
from hasten.serve.outlook import Outlook
from hasten.serve.policy import Lane, Policy, Rung
from hasten.serve.roster import Instance, Roster
from hasten.serve.waiting import Waiting

__all__ = [
    "Announced", "Arrived", "Cancelled", "Command", "Core", "Dispatch", "Drain", "EngineDown", "EngineLost", "EngineUp",
    "Event", "Finished", "Lane", "LatencyTable", "Policy", "Refuse", "Rung", "StartInstance", "StopInstance", "Tick",
    "Wake", "Warmed",
]  # fmt: skip


class Core:
    """The state of one model's scheduling. Without a `table` of latencies it guesses until it has seen some."""

    def __init__(self, policy: Policy, engine_up: bool = True, table: LatencyTable | None = None) -> None:
        self.policy = policy
        self.draining = False
        self.table = table or LatencyTable(ladder=policy.ladder)
        self.table.bind(policy.max_batch, compare=policy.company == "adaptive")
        self.lanes = Lanes(policy.lanes)
        self.outcomes = Outcomes(len(policy.lanes))
        self._roster = Roster(policy, engine_up)
        self._outlook = Outlook(policy, self.table, self.lanes, self._roster)
        self._door = Door(policy)
        self._first = policy.ladder[0].variant
        self._batcher = Batcher(policy)
        self._numbers = policy.lane_numbers
        self._held: Waiting | None = None
        self._held_until = -math.inf
        self._commands: list[Command] = []
        # The last one asked for: the same time is asked for again with most events.
        self._wake = Wake(-math.inf)
        self._takes: dict[type[Event], Callable[..., None]] = {
            Announced: self._announced,
            Arrived: self._arrived,
            Cancelled: self._cancelled,
            Finished: self._finished,
            EngineDown: self._down,
            EngineLost: self._engine_lost,
            EngineUp: self._up,
            Warmed: self._warmed,
            Drain: self._drain,
            Tick: self._tick,
        }

    @property
    def free(self) -> bool:
        """Whether an instance could take a batch now."""
        return self._roster.free

    @property
    def has_room(self) -> bool:
        """Whether an instance is free and nobody waits for one: then nobody is in anybody's way."""
        return self._roster.free and not self.lanes.count

    @property
    def level(self) -> int:
        """How far down the ladder the model is served; one past its end, background work is shed."""
        return self._outlook.ladder.level

    @property
    def has_levels(self) -> bool:
        """Whether there is any other level."""
        return self._outlook.ladder.moves

    @property
    def wanted(self) -> int:
        """How many instances should be up."""
        return self._roster.wanted

    def is_up(self, instance: int = 0) -> bool:
        """Whether an instance takes work."""
        return self._roster.instances[instance].state in ("idle", "busy")

    def is_busy(self, instance: int = 0) -> bool:
        """Whether an instance runs a batch."""
        return bool(self._roster.instances[instance].batch)

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event at time `now` (seconds) and return commands, in the order to carry them out."""
        self._commands = []
        self._pass_time(now)
        self._takes[type(event)](event, now)
        return self._decided(now)

    def arrive(self, events: Sequence[Arrived], now: float, ended: Sequence[Event] = ()) -> list[Command]:
        """Take requests that came at the same moment: they go together, instead of the first alone and the others
        behind it. Whatever fills a batch or the queue goes regardless of those that follow. `ended` are batches that
        came back at that moment, whose instances are free for what waits and for these.
        """
        self._commands = []
        self._pass_time(now)
        lanes, most, capacity = self.lanes, self.policy.max_batch, self.policy.queue_capacity
        for event in ended:
            self._takes[type(event)](event, now)
        if (lanes.rows >= most or lanes.count >= capacity) and self._roster.free:
            self._dispatch(now)
        last = len(events) - 1
        for number, event in enumerate(events):
            self._arrived(event, now)
            full = lanes.rows >= most or lanes.count >= capacity
            if full and number < last and self._roster.free:
                self._dispatch(now)
        return self._decided(now)

    def _pass_time(self, now: float) -> None:
        """Give up what has waited too long, and look at windows that ended."""
        lanes, outlook = self.lanes, self._outlook
        if lanes.limits and lanes.limits[0][0] <= now:
            for request in lanes.expired(now):
                self._give_up(request, "expired" if request.deadline <= now else "too old")
        if outlook.ends <= now:
            self._scale(outlook.end_windows(now))

    def _decided(self, now: float) -> list[Command]:
        """Send what can go; return all commands, and when to ask again."""
        commands, lanes, at = self._commands, self.lanes, math.inf
        if lanes.count:
            if self._roster.free:
                at = self._dispatch(now)
            if lanes.limits and lanes.limits[0][0] < at:
                at = lanes.limits[0][0]
        ends = self._outlook.next_end()
        if ends < at:
            at = ends
        if at != math.inf:
            if at != self._wake.at:
                self._wake = Wake(at)
            commands.append(self._wake)
        return commands

    def _arrived(self, event: Arrived, now: float) -> None:
        number = self._numbers.get(event.lane)
        if number is None:
            self._turn_away(-1, refuse(event.id, "unknown lane"))
            return
        request = self._request(event, number, now)
        refusal = self._refusal(event, request, now)
        if refusal is not None:
            self._turn_away(number, refusal)
            return
        self._batcher.arrived(event.key, now)
        self.lanes.add(request)
        if request.tenant:
            self._door.entered(request.tenant)
        self.outcomes.admit(number)

    def _announced(self, announced: Announced, now: float) -> None:
        """Refuse a well-formed request that would be refused now; else nothing changes."""
        event = announced.request
        number = self._numbers.get(event.lane)
        if number is None or self.has_room:
            return
        refusal = self._closed(event.id, number)
        if refusal is None:
            request = self._request(event, number, now)
            if self._door.malformed(event, request.deadline, now) is not None:
                return
            reason, _ = self._judged(request, now)
            if reason is None:
                return
            self._offered(request)
            refusal = refuse(event.id, reason, self._outlook.drains_in(number))
        self._turn_away(number, refusal)

    def _request(self, event: Arrived, number: int, now: float) -> Waiting:
        lane = self.policy.lanes[number]
        deadline = math.inf if event.deadline is None else event.deadline
        if event.deadline is None and lane.deadline_s is not None:
            deadline = now + lane.deadline_s
        limit = deadline
        if lane.max_age_s is not None and now + lane.max_age_s < deadline:
            limit = now + lane.max_age_s
        rows, key = event.rows, event.key
        times = self.table.of(key)
        first = times[self._first]
        # Engine seconds of the first variant that so many rows take in full batches.
        work = first.mean(first.full) * rows / first.full
        return Waiting(event.id, rows, key, now, deadline, limit, math.inf, number, work, event.tenant, False, times)

    def _refusal(self, event: Arrived, request: Waiting, now: float) -> Refuse | None:
        refusal = self._closed(event.id, request.lane) or self._door.malformed(event, request.deadline, now)
        if refusal is not None:
            return refusal
        self._offered(request)
        reason, last = self._judged(request, now)
        if reason is None and last is not None:
            self._give_up(last, "displaced")
        return refuse(event.id, reason, self._outlook.drains_in(request.lane)) if reason else None

    def _closed(self, id_: int, lane: int) -> Refuse | None:
        """The refusal of whatever comes, where nothing is taken at all."""
        if self.draining:
            return refuse(id_, "draining", self._outlook.drains_in(lane))
        loss = self._roster.loss
        return None if loss is None else refuse(id_, "no engine", loss.retry_after_s)

    def _offered(self, request: Waiting) -> None:
        """Work came, whether or not it is let in."""
        if self._outlook.watches:
            self._outlook.offer(request.lane, request.work)

    def _judged(self, request: Waiting, now: float) -> tuple[str | None, Waiting | None]:
        """Why there is no place for a request; without a reason, who has to make room for it, where anybody has."""
        lanes, lane = self.lanes, request.lane
        reason = self._door.full(lane, request.tenant, lanes.count, lanes.length(lane))
        last = lanes.last_below(lane) if reason == "queue full" else None
        if reason is None or last is not None:
            reason = self._outlook.unlikely(request, now)
        return reason, last

    def _turn_away(self, lane: int, refusal: Refuse) -> None:
        self.outcomes.refuse(lane, "arriving", refusal.reason)
        self._commands.append(refusal)

    def _give_up(self, request: Waiting, reason: str, retry_after_s: float | None = None) -> None:
        """Refuse a request that waits."""
        self._leave(request)
        self.outcomes.refuse(request.lane, "waiting", reason)
        wait_s = self._outlook.drains_in(request.lane) if retry_after_s is None else retry_after_s
        self._commands.append(refuse(request.id, reason, wait_s))

    def _leave(self, request: Waiting) -> None:
        self.lanes.remove(request.id)
        if request.tenant:
            self._door.left(request.tenant)

    def _cancelled(self, event: Cancelled, now: float) -> None:
        request = self.lanes.get(event.id)
        if request is not None:
            self._leave(request)
            self.outcomes.move(request.lane, "waiting", "cancel")

    def _finished(self, event: Finished, now: float) -> None:
        instance = self._roster.instances[event.instance]
        batch = instance.batch
        if batch:
            self.table.learn(instance.variant, instance.rows, batch[0].key, event.seconds / instance.slowness)
            self.outcomes.move_all(batch, "running", "finish")
            instance.batch = []
        if self._roster.move(instance, "finished") and instance.state == "off":
            self._commands.append(StopInstance(instance.number))

    def _down(self, event: EngineDown, now: float) -> None:
        instance = self._roster.instances[event.instance]
        if instance.batch:
            self.outcomes.move_all(instance.batch, "running", "engine down")
            instance.batch = []
        self._roster.move(instance, "engine down")

    def _engine_lost(self, event: EngineLost, now: float) -> None:
        instance = self._roster.instances[event.instance]
        instance.loss = event
        self._roster.move(instance, "engine lost")
        loss = self._roster.loss
        if loss is not None:
            for request in self.lanes.all():
                self._give_up(request, "no engine", loss.retry_after_s)

    def _up(self, event: EngineUp, now: float) -> None:
        instance = self._roster.instances[event.instance]
        instance.loss = None
        self._roster.move(instance, "engine up")

    def _warmed(self, event: Warmed, now: float) -> None:
        self.table.warm(event.variant, event.rows, event.key, event.seconds)

    def _drain(self, event: Drain, now: float) -> None:
        self.draining = True
        self._held = None

    def _tick(self, event: Tick, now: float) -> None:
        """Time has passed, and that is looked at with every event."""

    def _scale(self, wanted: int) -> None:
        """Start and stop instances until so many are up or on their way."""
        while not self.draining and self._roster.wanted != wanted:
            more = self._roster.wanted < wanted
            instance = self._roster.startable() if more else self._roster.stoppable()
            if instance is None or not self._roster.move(instance, "start" if more else "stop"):
                return
            if instance.state == "starting":
                self._commands.append(StartInstance(instance.number))
            elif instance.state == "off":
                self._commands.append(StopInstance(instance.number))

    def _dispatch(self, now: float) -> float:
        """Send batches to the instances that are free; return until when what is left waits for company, infinite where
        it does not.
        """
        lanes, roster, ladder = self.lanes, self._roster, self.policy.ladder
        while lanes.count and roster.free:
            head = lanes.pick(now, self._bound)
            if head is self._held and now < self._held_until and self._may_rest(head):
                return self._held_until
            instance = (
                roster.first_idle()
                if roster.alike
                else roster.best(now, partial(self._bound, head), lone=lanes.rows <= self.policy.max_batch)
            )
            if instance is None:
                return math.inf
            rung = self._outlook.rung(head, now)
            variant = ladder[rung].variant
            times = head.times[variant]
            most = times.next(lanes.rows_of(head.key)) if times.due else times.full
            formed = self._batcher.form(
                lanes.line(head),
                now,
                times.bound if instance.slowness == 1.0 else _slower(times, instance.slowness),
                most,
                company=self._company(head, rung) if len(lanes.waiting) > 1 else (),
                strict=times.known,
                at_once=self.draining,
                idle=not roster.runs,
            )
            for request in formed.late:
                self._give_up(request, "too late to start")
            if formed.batch:
                self._send(formed, instance, variant, now)
            elif formed.until is not None:
                self._hold(head, formed.until)
                return formed.until
        return math.inf

    def _may_rest(self, head: Waiting) -> bool:
        """Whether nothing has happened that ends a wait early: the batch is not full, and the server not idle."""
        full = self.lanes.rows_of(head.key) >= head.times[self._outlook.variants[head.lane]].full
        return not full and (self._roster.runs or self.policy.company == "window")

    def _hold(self, head: Waiting, until: float) -> None:
        """Ask again only when the wait is over, the batch may be full, or another head leads: not with every event.

        Company makes a batch longer; where the head's deadline leaves no room for that, every event is looked at.
        """
        roomy = not self.draining and until + self._bound(head) <= head.deadline
        self._held, self._held_until = (head, until) if roomy else (None, -math.inf)

    def _send(self, formed: Formed, instance: Instance, variant: str, now: float) -> None:
        batch = formed.batch
        rows = sum([request.rows for request in batch])
        seconds = batch[0].times[variant].mean(rows) * instance.slowness
        shares: dict[int, float] = {}
        for request in batch:
            shares[request.lane] = shares.get(request.lane, 0.0) + seconds * request.rows / rows
        self.lanes.charge(batch[0].lane, shares)
        for request in batch:
            self.lanes.remove(request.id)
            if request.tenant:
                self._door.left(request.tenant)
        self.outcomes.move_all(batch, "waiting", "dispatch")
        self._roster.move(instance, "dispatch")
        instance.batch, instance.rows, instance.variant = batch, rows, variant
        instance.busy_until = now + seconds
        self._commands.append(Dispatch(tuple([r.id for r in batch]), rows, instance.number, variant, formed.closed))

    def _company(self, head: Waiting, rung: int) -> Iterable[Waiting]:
        """Who may fill up the head's batch: other lanes whose floor the variant meets.

        Company makes a batch longer. A lane without deadlines goes alone, for then nothing says how long it may take.
        """
        if head.deadline == math.inf and not self.policy.lanes[head.lane].background:
            return ()
        return self.lanes.company(head, self._outlook.served_by(rung))

    def _bound(self, request: Waiting) -> float:
        """How long a full batch like this request takes at most on the first instance."""
        times = request.times[self._outlook.variants[request.lane]]
        return times.bound(times.full)


def _slower(times: Times, slowness: float) -> Callable[[int], float]:
    """How long so many rows take at most on an instance of this slowness."""
    return lambda rows: times.bound(rows) * slowness
