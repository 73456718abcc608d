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
from typing import Any

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

__all__ = ["Outside", "Played", "Service", "poisson", "simulate"]

# Values that are drawn one after the other before the walk goes on elsewhere, in the mean.
_TOGETHER = 20
# Who waited for so many batches is as likely to meet what overload makes of a server as what a medium load does.
# Engines and front end slow down with the queue, not at once: face-detector at 85 % of what was carried took 1.64 to
# 1.76 ms after waits of up to two batches, and 1.77 to 1.83 after 4 to 16; 1.61 at a medium load, 1.89 in overload.
_LONG = 4.0


class _Walk:
    """Draws from a series of measured values so that neighbours stay neighbours: slow spells of a machine last, and
    values that were drawn one by one would scatter them. The stationary bootstrap (Politis and Romano 1994).
    """

    def __init__(self, values: Sequence[float]) -> None:
        self._values = values
        self._at = -1

    def draw(self, rng: np.random.Generator) -> float:
        onwards = self._at >= 0 and rng.random() > 1 / _TOGETHER
        self._at = (self._at + 1) % len(self._values) if onwards else int(rng.integers(len(self._values)))
        return self._values[self._at]


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


class Service:
    """Draws the time of a batch from what was measured in one layout. `speed` divides all times: what a machine that is
    so many times as fast would give.
    """

    def __init__(self, times: Sequence[ServiceTimes], *, speed: float = 1.0) -> None:
        self._sizes = sorted(times, key=lambda item: item.batch)
        self._states = {
            item.batch: _States(item.alone_ms, item.busy_ms, item.briefly_ms, item.waited_ms) for item in times
        }
        self._speed = speed
        # Of one request, with all instances busy.
        self.usual_s = float(np.mean(self._sizes[0].busy_ms)) / 1e3 / speed

    def seconds(self, rows: int, crowding: float, rng: np.random.Generator) -> float:
        """Return how long a batch of `rows` takes at a crowding from 0 (no other instance is busy) to 1 (all are), and
        from there to 2 where it had to wait, the longer the more.

        Between two measured sizes times are interpolated; above the largest they grow in proportion.
        """
        below = [item for item in self._sizes if item.batch <= rows]
        above = next((item for item in self._sizes if item.batch >= rows), None)
        if not below or above is None or above.batch == rows:
            item = above or self._sizes[-1]
            return self._draw(item, crowding, rng) * (1.0 if above else rows / item.batch)
        low = below[-1]
        share = (rows - low.batch) / (above.batch - low.batch)
        return (1 - share) * self._draw(low, crowding, rng) + share * self._draw(above, crowding, rng)

    def _draw(self, item: ServiceTimes, crowding: float, rng: np.random.Generator) -> float:
        return self._states[item.batch].draw(crowding, rng) / 1e3 / self._speed


class _States:
    """Series of times: alone, with others busy, after waiting at a medium load and in overload. What was not measured
    is like the next.
    """

    def __init__(
        self, alone: Sequence[float], busy: Sequence[float], briefly: Sequence[float], waited: Sequence[float]
    ) -> None:
        self._alone, self._busy = _Walk(alone or busy), _Walk(busy)
        self._waited = _Walk(waited or busy)
        self._briefly = _Walk(briefly) if briefly else self._waited

    def draw(self, crowding: float, rng: np.random.Generator) -> float:
        """One value. Between two states it comes from the one or the other series, in proportion."""
        if crowding > 1:
            return (self._waited if crowding - 1 > rng.random() else self._briefly).draw(rng)
        return (self._busy if crowding > rng.random() else self._alone).draw(rng)


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
    outside: Outside | None = None,
) -> Played:
    """Play arrivals (seconds, ascending) through the scheduler. `keys` are shape keys to draw from, with their
    frequency; requests carry one row. What they spend `outside`
    of queue and engine is drawn for each batch and comes on top.
    """
    return _Play(policy, service, rng, outside or Outside()).run(arrivals, keys)


class _Play:
    def __init__(self, policy: Policy, service: Service, rng: np.random.Generator, outside: Outside) -> None:
        self._core = Core(policy)
        self._instances = policy.instances
        self._service = service
        self._outside = _States(outside.alone_ms, outside.busy_ms, outside.briefly_ms, outside.waited_ms)
        self._between_s = outside.between_ms / 1e3
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
                crowding = self._crowding(now - self._arrived[ids[0]])
                self._extra[instance] = self._outside.draw(crowding, self._rng) / 1e3
                seconds = self._service.seconds(rows, crowding, self._rng)
                self._played.busy_s += seconds
                self._played.batches += 1
                # It is free for the next batch only then.
                self._at(now + seconds + self._between_s, Finished(seconds, instance))
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
        answered = now - self._between_s + outside_s
        self._played.latencies_s += [answered - self._arrived[id_] for id_ in ids]
        self._played.ended_s = now

    def _at(self, time: float, event: Event) -> None:
        heapq.heappush(self._heap, (time, next(self._order), event))
