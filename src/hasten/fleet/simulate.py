"""A server in simulated time: the scheduler that serves (`serve.core`), fed with arrivals and measured service times.

There is one scheduler; here events come from a heap instead of sockets and processes, so what it is predicted to do is
what it does. Pure: no clock, no threads; the same seed gives the same run.
"""

from __future__ import annotations

import heapq
import itertools
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

__all__ = ["Played", "Service", "poisson", "simulate"]


class Service:
    """Draws the time of a batch from what was measured in one layout. `speed` divides all times: what a machine that is
    so many times as fast would give.
    """

    def __init__(self, times: Sequence[ServiceTimes], *, speed: float = 1.0) -> None:
        self._sizes = sorted(times, key=lambda item: item.batch)
        self._speed = speed

    def seconds(self, rows: int, busy: int, rng: np.random.Generator) -> float:
        """Return how long a batch of `rows` takes while `busy` instances work, this one included.

        Between two measured sizes times are interpolated; above the largest they grow in proportion.
        """
        below = [item for item in self._sizes if item.batch <= rows]
        above = next((item for item in self._sizes if item.batch >= rows), None)
        if not below or above is None or above.batch == rows:
            item = above or self._sizes[-1]
            return self._draw(item, busy, rng) * (1.0 if above else rows / item.batch)
        low = below[-1]
        share = (rows - low.batch) / (above.batch - low.batch)
        return (1 - share) * self._draw(low, busy, rng) + share * self._draw(above, busy, rng)

    def _draw(self, item: ServiceTimes, busy: int, rng: np.random.Generator) -> float:
        """One measured run; with some of the instances busy, from the one or the other set in proportion."""
        crowded = item.instances == 1 or (busy - 1) / (item.instances - 1) > rng.random()
        times = item.busy_ms if crowded or not item.alone_ms else item.alone_ms
        return times[int(rng.integers(len(times)))] / 1e3 / self._speed


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
    policy: Policy, service: Service, arrivals: Sequence[float], keys: Sequence[Hashable], rng: np.random.Generator
) -> Played:
    """Play arrivals (seconds, ascending) through the scheduler. `keys` are shape keys to draw from, with their
    frequency; requests carry one row.
    """
    return _Play(policy, service, rng).run(arrivals, keys)


class _Play:
    def __init__(self, policy: Policy, service: Service, rng: np.random.Generator) -> None:
        self._core = Core(policy)
        self._service = service
        self._rng = rng
        self._heap: list[tuple[float, int, Event]] = []
        self._order = itertools.count()
        self._arrived: dict[int, float] = {}
        self._running: dict[int, tuple[int, ...]] = {}
        self._played = Played()

    def run(self, arrivals: Sequence[float], keys: Sequence[Hashable]) -> Played:
        chosen: Any = self._rng.integers(len(keys), size=len(arrivals)) if keys else [0] * len(arrivals)
        for id_, at in enumerate(arrivals):
            self._arrived[id_] = at
            self._at(at, Arrived(id_, 1, keys[int(chosen[id_])] if keys else None))
        while self._heap:
            now, _, event = heapq.heappop(self._heap)
            if isinstance(event, Finished):
                self._answer(self._running.pop(event.instance), now)
            for command in self._core.handle(event, now):
                self._carry_out(command, now)
        return self._played

    def _carry_out(self, command: Command, now: float) -> None:
        match command:
            case Dispatch(ids, rows, instance):
                self._running[instance] = ids
                seconds = self._service.seconds(rows, len(self._running), self._rng)
                self._played.busy_s += seconds
                self._played.batches += 1
                self._at(now + seconds, Finished(seconds, instance))
            case Wake(at):
                self._at(at, Tick())
            case Refuse():
                self._played.refused += 1
            case StartInstance() | StopInstance():
                pass  # only a policy with a scale asks for these

    def _answer(self, ids: tuple[int, ...], now: float) -> None:
        self._played.latencies_s += [now - self._arrived[id_] for id_ in ids]
        self._played.ended_s = now

    def _at(self, time: float, event: Event) -> None:
        heapq.heappush(self._heap, (time, next(self._order), event))
