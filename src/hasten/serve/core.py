"""The scheduler: events in, commands out, no I/O. One engine instance behind one bounded queue.

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
    """Bounds of one model's queue. `max_delay_s` 0 never makes a request wait for company."""

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
    """The engine is done with the batch, well or not; it took `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class EngineDown:
    """The engine cannot take work; what was running is lost, and what waits keeps waiting for its return."""


@dataclass(frozen=True, slots=True)
class EngineLost:
    """The engine did not come back at once; the next attempt is in `retry_after_s`. Nothing waits for it."""

    retry_after_s: float


@dataclass(frozen=True, slots=True)
class EngineUp:
    """The engine takes work."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed; sent at the time that a `Wake` asked for."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Accept nothing more; finish what waits."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Run these requests together."""

    ids: tuple[int, ...]
    rows: int


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
class Core:
    """The state of one model's scheduling."""

    policy: Policy
    engine_up: bool = True
    busy: bool = False
    draining: bool = False
    row_seconds: float = 0.01
    batcher: Batcher = field(init=False)
    _lost: EngineLost | None = None

    def __post_init__(self) -> None:
        self.batcher = Batcher(self.policy.max_batch, self.policy.max_delay_s)

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event at time `now` (seconds) and return commands, in the order to carry them out."""
        commands = self._expire(now)
        match event:
            case Arrived():
                commands += self._admit(event, now)
            case Cancelled(id_):
                self.batcher.remove(id_)
            case Finished(seconds):
                self.busy = False
                self._learn(seconds)
            case EngineDown():
                self.engine_up, self.busy = False, False
            case EngineLost():
                self._lost = event
                commands += self._give_up(event)
            case EngineUp():
                self.engine_up, self._lost = True, None
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
        if self._lost is not None:
            return _without_engine(event.id, self._lost)
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

    def _give_up(self, lost: EngineLost) -> list[Command]:
        waiting = self.batcher.ids()
        for id_ in waiting:
            self.batcher.remove(id_)
        return [_without_engine(id_, lost) for id_ in waiting]

    def _dispatch(self, now: float) -> list[Command]:
        """Send the next batch if the engine is free, and ask to be woken for the next deadline or full wait."""
        commands: list[Command] = []
        if self.engine_up and not self.busy:
            batch = self.batcher.take(now, at_once=self.draining)
            if batch:
                self.busy = True
                self._running_rows = sum(request.rows for request in batch)
                commands.append(Dispatch(tuple(request.id for request in batch), self._running_rows))
        times = [self.batcher.next_deadline()]
        if self.engine_up and not self.busy:
            times.append(self.batcher.ready_at())
        known = [time for time in times if time is not None]
        return [*commands, Wake(min(known))] if known else commands

    _running_rows: int = 1

    def _learn(self, seconds: float) -> None:
        """Seconds per row, smoothed over about ten batches."""
        self.row_seconds += 0.1 * (seconds / max(self._running_rows, 1) - self.row_seconds)

    def _wait_s(self) -> float:
        """How long the queue takes to empty: when coming back makes sense."""
        return max(0.001, self.batcher.rows * self.row_seconds)


def _without_engine(id_: int, lost: EngineLost) -> Refuse:
    return Refuse(id_, "unavailable", "The engine stopped and has not come back yet.", lost.retry_after_s)
