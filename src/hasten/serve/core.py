"""The scheduler: events in, commands out, no I/O. Engine instances behind one bounded queue.

`handle(event, now)` returns what to do. The driver carries commands out and reports what happened as further
events; tests and simulations do the same with time moved by hand.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from hasten.serve.batcher import Batcher, Waiting

__all__ = [
    "Arrived", "Cancelled", "Command", "Core", "Dispatch", "Drain", "EngineDown", "EngineLost", "EngineUp", "Event",
    "Finished", "Policy", "Refuse", "Tick", "Wake",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Bounds of one model's queue. `max_delay_s` 0 never makes a request wait for company. `instances` run batches
    side by side.
    """

    instances: int = 1
    max_batch: int = 1
    max_delay_s: float = 0.0
    queue_capacity: int = 256


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request came in. `deadline` is on the same clock as `now`."""

    id: int
    rows: int = 1
    key: Hashable = None
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The client of a request went away."""

    id: int


@dataclass(frozen=True, slots=True)
class Finished:
    """An engine instance is done with its batch, well or not; it took `seconds`."""

    seconds: float
    instance: int = 0


@dataclass(frozen=True, slots=True)
class EngineDown:
    """An instance cannot take work; what it was running is lost, and what waits keeps waiting."""

    instance: int = 0


@dataclass(frozen=True, slots=True)
class EngineLost:
    """An instance did not come back at once; the next try is in `retry_after_s`. Where all are lost, none waits."""

    retry_after_s: float
    instance: int = 0


@dataclass(frozen=True, slots=True)
class EngineUp:
    """An instance takes work."""

    instance: int = 0


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed; sent at the time that a `Wake` asked for."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Accept nothing more; finish what waits."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Run these requests together on this instance. `closed` says why no more are waited for: the batch is full, the
    delay is over, the server drains, or an engine is free and nothing makes a request wait.
    """

    ids: tuple[int, ...]
    rows: int
    instance: int = 0
    closed: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer a request with an error; `code` is one of `hasten.wire.base.STATUS`."""

    id: int
    code: str
    message: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Wake:
    """Send a `Tick` at this time."""

    at: float


Event = Arrived | Cancelled | Finished | EngineDown | EngineLost | EngineUp | Tick | Drain
Command = Dispatch | Refuse | Wake


@dataclass(slots=True)
class _Instance:
    """What one engine instance is at: up or not, the rows that it runs, and since when it is lost."""

    up: bool
    running_rows: int = 0
    lost: EngineLost | None = None

    @property
    def free(self) -> bool:
        return self.up and not self.running_rows


class Core:
    """The state of one model's scheduling."""

    def __init__(self, policy: Policy, engine_up: bool = True) -> None:
        self.policy = policy
        self.draining = False
        self.row_seconds = 0.01
        self.batcher = Batcher(policy.max_batch, policy.max_delay_s)
        self._instances = [_Instance(engine_up) for _ in range(policy.instances)]

    @property
    def free(self) -> bool:
        """Whether an instance could take a batch now."""
        return any(instance.free for instance in self._instances)

    def is_up(self, instance: int = 0) -> bool:
        """Whether an instance takes work."""
        return self._instances[instance].up

    def is_busy(self, instance: int = 0) -> bool:
        """Whether an instance runs a batch."""
        return self._instances[instance].running_rows > 0

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event at time `now` (seconds) and return commands, in the order to carry them out."""
        commands = self._expire(now)
        match event:
            case Arrived():
                commands += self._admit(event, now)
            case Cancelled(id_):
                self.batcher.remove(id_)
            case Finished(seconds, number):
                self._learn(seconds, self._instances[number].running_rows)
                self._instances[number].running_rows = 0
            case EngineDown(number):
                self._instances[number] = _Instance(up=False)
            case EngineLost():
                self._instances[event.instance].lost = event
                commands += self._give_up()
            case EngineUp(number):
                self._instances[number] = _Instance(up=True)
            case Drain():
                self.draining = True
            case Tick():
                pass
        return commands + self._dispatch(now)

    def _admit(self, event: Arrived, now: float) -> list[Command]:
        refusal = self._refusal(event, now)
        if refusal:
            return [refusal]
        self.batcher.add(Waiting(id=event.id, rows=event.rows, key=event.key, arrived=now, deadline=event.deadline))
        return []

    def _refusal(self, event: Arrived, now: float) -> Refuse | None:
        if self.draining:
            return Refuse(event.id, "unavailable", "The server is shutting down.", self._wait_s())
        lost = self._lost()
        if lost is not None:
            return _without_engine(event.id, lost)
        if event.deadline is not None and event.deadline <= now:
            return Refuse(event.id, "deadline", "The deadline had passed on arrival.")
        # One request of many rows runs alone where it is larger than a batch; only a batching model has a limit.
        if self.policy.max_batch > 1 and event.rows > self.policy.max_batch:
            return Refuse(
                event.id,
                "invalid",
                f"The request has {event.rows} rows; at most {self.policy.max_batch} are taken.",
            )
        if len(self.batcher) >= self.policy.queue_capacity:
            return Refuse(event.id, "overloaded", "The queue is full.", self._wait_s())
        return None

    def _expire(self, now: float) -> list[Command]:
        gone = self.batcher.expired(now)
        for id_ in gone:
            self.batcher.remove(id_)
        return [Refuse(id_, "deadline", "The deadline passed while the request waited.") for id_ in gone]

    def _lost(self) -> EngineLost | None:
        """The loss that comes back first, where every instance is lost."""
        losses = [instance.lost for instance in self._instances if instance.lost is not None]
        return min(losses, key=lambda lost: lost.retry_after_s) if len(losses) == len(self._instances) else None

    def _give_up(self) -> list[Command]:
        lost = self._lost()
        if lost is None:
            return []
        waiting = self.batcher.ids()
        for id_ in waiting:
            self.batcher.remove(id_)
        return [_without_engine(id_, lost) for id_ in waiting]

    def _dispatch(self, now: float) -> list[Command]:
        """Send batches to the instances that are free, and ask to be woken for the next deadline or full wait."""
        commands: list[Command] = []
        for number, instance in enumerate(self._instances):
            batch = self.batcher.take(now, at_once=self.draining) if instance.free else []
            if batch:
                instance.running_rows = sum(request.rows for request in batch)
                ids = tuple(request.id for request in batch)
                commands.append(Dispatch(ids, instance.running_rows, number, self._closed(instance.running_rows)))
        times = [self.batcher.next_deadline()]
        if self.free:
            times.append(self.batcher.ready_at())
        known = [time for time in times if time is not None]
        return [*commands, Wake(min(known))] if known else commands

    def _closed(self, rows: int) -> str:
        if rows >= self.policy.max_batch:
            return "full"
        if self.draining:
            return "drain"
        return "delay" if self.policy.max_delay_s > 0 else "free"

    def _learn(self, seconds: float, rows: int) -> None:
        """Seconds per row, smoothed over about ten batches; instances work side by side."""
        if rows:
            self.row_seconds += 0.1 * (seconds / rows / len(self._instances) - self.row_seconds)

    def _wait_s(self) -> float:
        """How long the queue takes to empty: when coming back makes sense."""
        return max(0.001, self.batcher.rows * self.row_seconds)


def _without_engine(id_: int, lost: EngineLost) -> Refuse:
    return Refuse(id_, "unavailable", "The engine stopped and has not come back yet.", lost.retry_after_s)
