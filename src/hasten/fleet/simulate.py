"""A server in simulated time: the scheduler that serves (`serve.core`), fed with arrivals and measured service times.

There is one scheduler; here events come from a heap instead of sockets and processes, so what it is predicted to do is
what it does. Pure: no clock, no threads; the same seed gives the same run.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from hasten.serve.core import (
    Arrived,
    Command,
    Core,
    Dispatch,
    Event,
    Finished,
    Policy,
    Refuse,
    StartInstance,
    StopInstance,
    Tick,
    Wake,
)  # fmt: skip
from hasten.spec.serving import ServiceTimes
from hasten.spec.values import Value

__all__ = ["Drawn", "Outside", "Played", "Service", "poisson", "simulate"]

# Values that are drawn one after the other before the walk goes on elsewhere, in the mean.
_TOGETHER = 20
# Who waited for so many batches is as likely to meet what overload makes of a server as what a medium load does.
# Engines and front end slow down with the queue, not at once: face-detector at 85 % of what was carried took 1.64 to
# 1.76 ms after waits of up to two batches, and 1.77 to 1.83 after 4 to 16; 1.61 at a medium load, 1.89 in overload.
_LONG = 4.0


class _Walk:
    """Places in a series of measured values, chosen so that neighbours stay neighbours: slow spells of a machine last,
    and values that were drawn one by one would scatter them. The stationary bootstrap (Politis and Romano 1994).
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._at = -1

    def step(self, rng: np.random.Generator) -> int:
        onwards = self._at >= 0 and rng.random() > 1 / _TOGETHER
        self._at = (self._at + 1) % self._length if onwards else int(rng.integers(self._length))
        return self._at


class Outside(Value, frozen=True):
    """What requests spend outside queue and engine, on the wire, in the front end and in their client, in ms and in
    time order: of those that met an idle server, those that met a busy instance, those that waited at a medium load,
    and those that waited in overload. `between_ms` passes at an instance from one batch to the next, where one waits.
    """

    alone_ms: tuple[float, ...] = (0.0,)
    busy_ms: tuple[float, ...] = (0.0,)
    briefly_ms: tuple[float, ...] = ()
    waited_ms: tuple[float, ...] = (0.0,)
    between_ms: float = 0.0


class Drawn(NamedTuple):
    """Of one batch, in seconds: its time in the engine, and what its requests spend outside of queue and engine."""

    engine_s: float
    outside_s: float


class Service:
    """Draws the times of a batch from what was measured in one layout. `speed` divides times in the engine: what a
    machine that is so many times as fast would give.
    """

    def __init__(self, times: Sequence[ServiceTimes], outside: Outside | None = None, *, speed: float = 1.0) -> None:
        outside = outside or Outside()
        self._sizes = sorted(times, key=lambda item: item.batch)
        self._states = {item.batch: _States(item, outside) for item in times}
        self._speed = speed
        self.between_s = outside.between_ms / 1e3
        # Of one request, with all instances busy.
        self.usual_s = float(np.mean(self._sizes[0].busy_ms)) / 1e3 / speed

    def draw(self, rows: int, crowding: float, rng: np.random.Generator) -> Drawn:
        """Return how long a batch of `rows` takes at a crowding from 0 (no other instance is busy) to 1 (all are), and
        from there to 2 where it had to wait, the longer the more.

        Between two measured sizes times are interpolated; above the largest those in the engine grow in proportion.
        """
        below = [item for item in self._sizes if item.batch <= rows]
        above = next((item for item in self._sizes if item.batch >= rows), None)
        if not below or above is None or above.batch == rows:
            item = above or self._sizes[-1]
            drawn = self._draw(item, crowding, rng)
            return drawn if above else Drawn(drawn.engine_s * rows / item.batch, drawn.outside_s)
        low = below[-1]
        share = (rows - low.batch) / (above.batch - low.batch)
        fewer, more = self._draw(low, crowding, rng), self._draw(above, crowding, rng)
        return Drawn((1 - share) * fewer.engine_s + share * more.engine_s, more.outside_s)

    def _draw(self, item: ServiceTimes, crowding: float, rng: np.random.Generator) -> Drawn:
        engine_ms, outside_ms = self._states[item.batch].at(crowding, rng).draw(rng)
        return Drawn(engine_ms / 1e3 / self._speed, outside_ms / 1e3)


class _State:
    """Times of batches that met the server in one state, in the engine and outside. Where they are of the same batches
    (series of the same length) they are drawn together, since what holds up the one holds up the other: of a light
    model, apart, the slowest hundredth came out 4 % too fast.
    """

    def __init__(self, engine_ms: Sequence[float], outside_ms: Sequence[float]) -> None:
        self._engine_ms, self._outside_ms = engine_ms, outside_ms
        self._walk = _Walk(len(engine_ms))
        self._apart = None if len(engine_ms) == len(outside_ms) else _Walk(len(outside_ms))

    def draw(self, rng: np.random.Generator) -> tuple[float, float]:
        at = self._walk.step(rng)
        return self._engine_ms[at], self._outside_ms[at if self._apart is None else self._apart.step(rng)]


class _States:
    """Alone, with others busy, after waiting at a medium load and in overload. What was not measured is like the
    next.
    """

    def __init__(self, times: ServiceTimes, outside: Outside) -> None:
        busy = times.busy_ms, outside.busy_ms
        waited = times.waited_ms or busy[0], outside.waited_ms or busy[1]
        self._alone = _State(times.alone_ms or busy[0], outside.alone_ms or busy[1])
        self._busy = _State(*busy)
        self._briefly = _State(times.briefly_ms or waited[0], outside.briefly_ms or waited[1])
        self._waited = _State(*waited)

    def at(self, crowding: float, rng: np.random.Generator) -> _State:
        """The state that a batch meets. Between two it is the one or the other, in proportion."""
        if crowding > 1:
            return self._waited if crowding - 1 > rng.random() else self._briefly
        return self._busy if crowding > rng.random() else self._alone


@dataclass(slots=True)
class Played:
    """What a simulated run gave: seconds from arrival to answer of each answered request in order of completion, how
    many were refused, and the share of time that instances worked.
    """

    latencies_s: list[float] = field(default_factory=list[float])
    refused: int = 0
    busy_s: float = 0.0
    ended_s: float = 0.0
    batches: int = 0

    def utilisation(self, instances: int) -> float:
        """Share of the instances' time that was spent on batches."""
        return self.busy_s / (self.ended_s * instances) if self.ended_s else 0.0


def poisson(rate_rps: float, count: int, rng: np.random.Generator) -> list[float]:
    """Return `count` arrival times in seconds of a Poisson process."""
    return np.cumsum(rng.exponential(1 / rate_rps, count)).tolist()


def simulate(
    policy: Policy,
    service: Service,
    arrivals: Sequence[float],
    keys: Sequence[Hashable],
    rng: np.random.Generator,
) -> Played:
    """Play arrivals (seconds, ascending) through the scheduler. `keys` are shape keys to draw from, with their
    frequency; requests carry one row. What they spend outside of queue and engine comes on top, the same for all of a
    batch.
    """
    return _Play(policy, service, rng).run(arrivals, keys)


class _Play:
    def __init__(self, policy: Policy, service: Service, rng: np.random.Generator) -> None:
        self._core = Core(policy)
        self._instances = policy.instances
        self._service = service
        self._rng = rng
        self._heap: list[tuple[float, int, Event]] = []
        self._order = itertools.count()
        self._arrived: dict[int, float] = {}
        self._running: dict[int, tuple[int, ...]] = {}
        # What batches under way spend outside queue and engine.
        self._extra: dict[int, float] = {}
        self._played = Played()

    def run(self, arrivals: Sequence[float], keys: Sequence[Hashable]) -> Played:
        chosen: Any = self._rng.integers(len(keys), size=len(arrivals)) if keys else [0] * len(arrivals)
        for id_, at in enumerate(arrivals):
            self._arrived[id_] = at
            self._at(at, Arrived(id_, 1, keys[int(chosen[id_])] if keys else None))
        while self._heap:
            now, _, event = heapq.heappop(self._heap)
            if isinstance(event, Finished):
                self._answer(self._running.pop(event.instance), now, self._extra.pop(event.instance))
            for command in self._core.handle(event, now):
                self._carry_out(command, now)
        return self._played

    def _carry_out(self, command: Command, now: float) -> None:
        match command:
            case Dispatch(ids, rows, instance):
                self._running[instance] = ids
                seconds, self._extra[instance] = self._service.draw(
                    rows, self._crowding(now - self._arrived[ids[0]]), self._rng
                )
                self._played.busy_s += seconds
                self._played.batches += 1
                # It is free for the next batch only then.
                self._at(now + seconds + self._service.between_s, Finished(seconds, instance))
            case Wake(at):
                self._at(at, Tick())
            case Refuse():
                self._played.refused += 1
            case StartInstance() | StopInstance():
                raise AssertionError("policies that are simulated here have a fixed number of instances")

    def _crowding(self, waited_s: float) -> float:
        """How busy the others are, from 0 to 1; above that where the batch itself had to wait, up to 2."""
        if waited_s > 0:
            batches = waited_s / self._service.usual_s if self._service.usual_s else math.inf
            return 2.0 - _LONG / (batches + _LONG)
        return (len(self._running) - 1) / (self._instances - 1) if self._instances > 1 else 0.0

    def _answer(self, ids: tuple[int, ...], now: float, outside_s: float) -> None:
        answered = now - self._service.between_s + outside_s
        self._played.latencies_s += [answered - self._arrived[id_] for id_ in ids]
        self._played.ended_s = now

    def _at(self, time: float, event: Event) -> None:
        heapq.heappush(self._heap, (time, next(self._order), event))
