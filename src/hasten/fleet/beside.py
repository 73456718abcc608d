"""What a server's own log tells of it: how long engines take beside front end and clients, and what a request spends
outside of queue and engine. With both the simulated server predicts the real one.

Engines that are timed in a loop are hot and have the machine to themselves. In a server they wake up, find their caches
cold and share cores with the front end and whoever asks it: on two cores magika took 5.7 ms for one caller in a loop,
and 8.1 ms for requests that came at random at a third of what it carries. So a server is looked at under a medium load
and under one that is more than it carries; and the simulation draws from what requests met there that found the server
in the same state. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from hasten.fleet.simulate import Outside
from hasten.spec.serving import ServiceTimes, Serving

__all__ = ["Beside", "Moved", "Seen", "beside_of", "moved_between"]

# Batches of one size and state that are enough to draw from.
_ENOUGH = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One answered request: seconds on a clock when its engine began, in ms its times in the engine, in the queue, and
    everywhere else between being sent and answered. `batch` is how many requests ran together.
    """

    began_s: float
    engine_ms: float
    queue_ms: float
    outside_ms: float
    batch: int = 1

    @property
    def ended_s(self) -> float:
        """When its engine was done."""
        return self.began_s + self.engine_ms / 1e3


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """A server as it was seen, beside its clients: `times` as at rest, but as long as they took there; and how many
    requests a second it carried.
    """

    times: tuple[ServiceTimes, ...]
    outside: Outside
    capacity_rps: float


class Moved(NamedTuple):
    """How many times as fast the machine was in the one half of a look as in the other; a half lasted `half_s`."""

    times: float
    half_s: float

    def over(self, seconds: float) -> float:
        """How many times as fast so many seconds may be as the look before them. What wobbles averages out: by the
        variance of means over both halves together and over `seconds`, against those of one half and the other.
        """
        return self.times ** math.sqrt(0.25 + self.half_s / (2 * seconds))


def beside_of(
    times: Sequence[ServiceTimes],
    serving: Serving,
    medium: Sequence[Seen],
    full: Sequence[Seen],
    capacity_rps: float,
) -> Beside:
    """Join what was measured at rest (`times`, all layouts) with what was seen of one layout: under a medium load and
    under more than it carries.

    What was not seen, other layouts and other batches, is taken to be as much slower as what was.
    """
    at_once = [one for one in medium if one.queue_ms == 0]
    met = _met_another(at_once, medium)
    alone = [one for one, another in zip(at_once, met, strict=True) if not another]
    busy = [one for one, another in zip(at_once, met, strict=True) if another]
    briefly = [one for one in medium if one.queue_ms > 0]
    waited = [one for one in full if one.queue_ms > 0]
    own = [item for item in times if (item.instances, item.threads) == (serving.instances, serving.threads)]
    slower = _slower(own, alone, waited)

    def moved(item: ServiceTimes) -> ServiceTimes:
        at_rest = item.alone_ms or item.busy_ms
        seen = item in own
        return msgspec.structs.replace(
            item,
            alone_ms=(_of(alone, item.batch) if seen else ()) or _times(at_rest, slower[0]),
            busy_ms=(_of(busy, item.batch) if seen else ()) or _times(item.busy_ms, slower[1]),
            briefly_ms=_of(briefly, item.batch) if seen else (),
            waited_ms=(_of(waited, item.batch) if seen else ()) or _times(item.busy_ms, slower[1]),
        )

    few = len(briefly) < _ENOUGH
    states = (alone, busy or alone, () if few else briefly, waited)
    ways = [tuple(one.outside_ms for one in state) for state in states]
    return Beside(
        times=tuple(moved(item) for item in times),
        outside=Outside(
            alone_ms=ways[0] or (0.0,),
            busy_ms=ways[1] or (0.0,),
            briefly_ms=ways[2],
            waited_ms=ways[3] or (0.0,),
            between_ms=_between_ms(serving, waited, capacity_rps),
        ),
        capacity_rps=capacity_rps,
    )


def moved_between(full: Sequence[Seen]) -> list[Moved]:
    """How much faster the machine became within a look, and as much slower: from the engine times of its halves, in
    both directions, since neither is nearer to what follows. Nothing where there are too few to tell.
    """
    waited = [one for one in full if one.queue_ms > 0]
    if len(waited) < 2 * _ENOUGH:
        return []
    half_s = (waited[-1].began_s - waited[0].began_s) / 2
    halves = [[one for one in waited if (one.began_s < waited[0].began_s + half_s) is first] for first in (True, False)]
    if min(map(len, halves)) < _ENOUGH:
        return []
    before, after = (sum(one.engine_ms / one.batch for one in half) / len(half) for half in halves)
    return [Moved(before / after, half_s), Moved(after / before, half_s)]


def _between_ms(serving: Serving, waited: Sequence[Seen], capacity_rps: float) -> float:
    """What instances that are never without work need beside their batches: how long a batch and what follows it take
    by the rate, less how long batches took.
    """
    batches = sum(1 / one.batch for one in waited)
    if not batches or not capacity_rps:
        return 0.0
    engine_ms = sum(one.engine_ms / one.batch for one in waited) / batches
    return max(0.0, serving.instances * (len(waited) / batches) / capacity_rps * 1e3 - engine_ms)


def _met_another(seen: Sequence[Seen], among: Sequence[Seen]) -> list[bool]:
    """Whether another batch ran when one began."""
    begins, ends = np.array([one.began_s for one in among]), np.array([one.ended_s for one in among])
    return [bool(np.any((begins < one.began_s) & (ends > one.began_s))) for one in seen]


def _of(seen: Sequence[Seen], batch: int) -> tuple[float, ...]:
    """Engine times of batches of one size, in order, each once: all requests of a batch have the same. Empty where
    there are too few.
    """
    times = [one.engine_ms for one in seen if one.batch == batch]
    once = tuple(time for at, time in enumerate(times) if batch == 1 or at == 0 or time != times[at - 1])
    return once if len(once) >= _ENOUGH else ()


def _slower(own: Sequence[ServiceTimes], alone: Sequence[Seen], waited: Sequence[Seen]) -> tuple[float, float]:
    """By how much means as seen, alone and after waiting, exceed those at rest; 1 where nothing was seen."""
    pairs = [[(_of(alone, item.batch), item.alone_ms or item.busy_ms) for item in own]]
    pairs += [[(_of(waited, item.batch), item.busy_ms) for item in own]]
    found = [[float(np.mean(seen) / np.mean(rest)) for seen, rest in each if seen] for each in pairs]
    by_alone, by_waiting = (float(np.median(each)) if each else None for each in found)
    return by_alone or by_waiting or 1.0, by_waiting or by_alone or 1.0


def _times(values: Sequence[float], by: float) -> tuple[float, ...]:
    return tuple(value * by for value in values)
