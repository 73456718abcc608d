"""Play arrivals through a scheduler in simulated time, with engines that take what they are told to take.

For tests of scheduling decisions: nothing sleeps, the same arrivals give the same run, and everything that was decided
can be looked at afterwards.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from hasten.serve.core import (
    Arrived,
    Cancelled,
    Command,
    Core,
    Dispatch,
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

__all__ = ["Arrival", "Ended", "Replayed", "replay"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """A request that comes at `at` seconds, wants its answer `within_s`, and is given up by its client after
    `leaves_s`.
    """

    at: float
    rows: int = 1
    key: Hashable = None
    within_s: float | None = None
    leaves_s: float | None = None
    lane: str = ""
    tenant: str = ""

    @property
    def deadline(self) -> float | None:
        """When the answer is worthless; None where never."""
        return None if self.within_s is None else self.at + self.within_s


@dataclass(frozen=True, slots=True)
class Ended:
    """How a request ended, and when; `variant` where it ran, `refusal` where it did not."""

    arrival: Arrival
    outcome: Literal["answered", "refused", "cancelled", "lost"]
    at: float
    variant: str = ""
    refusal: Refuse | None = None

    @property
    def on_time(self) -> bool:
        """Whether it was answered before its deadline."""
        return self.outcome == "answered" and (self.arrival.deadline is None or self.at <= self.arrival.deadline)


@dataclass(slots=True)
class Replayed:
    """`ended` by number of arrival; `log` has every event with its time and commands; `busy_s` are engine seconds."""

    ended: dict[int, Ended] = field(default_factory=dict[int, Ended])
    log: list[tuple[float, Event, list[Command]]] = field(default_factory=list[tuple[float, Event, list[Command]]])
    busy_s: float = 0.0


def replay(
    core: Core,
    arrivals: Iterable[Arrival],
    seconds: Callable[[Dispatch], float],
    *,
    events: Sequence[tuple[float, Event]] = (),
    start_s: float = 1.0,
) -> Replayed:
    """Play arrivals, and `events` at their times, until nothing is left to do. `seconds` says how long a batch takes;
    an instance that is started takes `start_s` to come up.

    Raises `AssertionError` where the scheduler breaks a law: a request ends twice, an instance gets two batches.
    """
    return _Replay(core, seconds, start_s).run(arrivals, events)


class _Replay:
    def __init__(self, core: Core, seconds: Callable[[Dispatch], float], start_s: float) -> None:
        self._core = core
        self._seconds = seconds
        self._start_s = start_s
        self._heap: list[tuple[float, int, Event]] = []
        self._order = itertools.count()
        self._arrivals: dict[int, Arrival] = {}
        self._running: dict[int, Dispatch] = {}
        self._waiting: set[int] = set()
        # A batch that was lost with its engine must not finish later.
        self._ends: dict[int, Finished] = {}
        self._ticks: set[float] = set()
        self._played = Replayed()

    def run(self, arrivals: Iterable[Arrival], events: Sequence[tuple[float, Event]]) -> Replayed:
        for id_, arrival in enumerate(arrivals):
            self._arrivals[id_] = arrival
            self._at(
                arrival.at,
                Arrived(id_, arrival.rows, arrival.key, arrival.deadline, arrival.lane, arrival.tenant),
            )
            if arrival.leaves_s is not None:
                self._at(arrival.at + arrival.leaves_s, Cancelled(id_))
        for at, event in events:
            self._at(at, event)
        while self._heap:
            now, _, event = heapq.heappop(self._heap)
            self._take(event, now)
        return self._played

    def _take(self, event: Event, now: float) -> None:
        match event:
            case Arrived():
                self._waiting.add(event.id)
            case Finished(_, number):
                if self._ends.get(number) is not event:
                    return
                del self._ends[number]
                batch = self._running.pop(number)
                for id_ in batch.ids:
                    self._end(id_, Ended(self._arrivals[id_], "answered", now, batch.variant))
            case EngineDown(number):
                self._ends.pop(number, None)
                batch = self._running.pop(number, None)
                for id_ in batch.ids if batch else ():
                    self._end(id_, Ended(self._arrivals[id_], "lost", now))
            case Tick():
                self._ticks.discard(now)
            case _:
                pass
        commands = self._core.handle(event, now)
        self._played.log.append((now, event, commands))
        for command in commands:
            self._carry_out(command, now)
        if isinstance(event, Cancelled) and event.id in self._waiting:
            self._waiting.remove(event.id)
            self._end(event.id, Ended(self._arrivals[event.id], "cancelled", now))

    def _carry_out(self, command: Command, now: float) -> None:
        match command:
            case Dispatch(ids, _, number):
                assert number not in self._running, "an instance runs one batch at a time"
                assert set(ids) <= self._waiting, "only what waits is run"
                self._waiting -= set(ids)
                seconds = self._seconds(command)
                self._running[number] = command
                self._ends[number] = Finished(seconds, number)
                self._played.busy_s += seconds
                self._at(now + seconds, self._ends[number])
            case Refuse(id_):
                assert id_ in self._waiting, "only what waits is refused"
                self._waiting.remove(id_)
                self._end(id_, Ended(self._arrivals[id_], "refused", now, refusal=command))
            case Wake(at):
                assert at > now, "a wake lies ahead"
                if at not in self._ticks:
                    self._ticks.add(at)
                    self._at(at, Tick())
            case StartInstance(number):
                self._at(now + self._start_s, EngineUp(number))
            case StopInstance(number):
                assert number not in self._running, "what runs is not stopped"

    def _end(self, id_: int, ended: Ended) -> None:
        assert id_ not in self._played.ended, "a request ends once"
        self._played.ended[id_] = ended

    def _at(self, time: float, event: Event) -> None:
        heapq.heappush(self._heap, (time, next(self._order), event))
