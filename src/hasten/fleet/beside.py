"""What a server's own log tells of it: how long engines take beside front end and clients, and what a request spends
outside of queue and engine. With both the simulated server predicts the real one.

Engines that are timed in a loop are hot and have the machine to themselves. In a server they wake up, find their caches
cold and share cores with the front end and whoever asks it: on two cores magika took 5.7 ms for one caller in a loop and
8.1 ms for requests that came at random at 15 % of what it carries. So a server is looked at twice, with few requests
that come at random, and with every instance busy; and the simulation draws from the one or the other. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from hasten.spec.serving import ServiceTimes, Serving

__all__ = ["Beside", "Seen", "beside_of", "drifts"]

# Batches of one size that are enough to draw from.
_ENOUGH = 12
# Without any values there is nothing to draw from: a request that was seen nowhere spends no time outside.
_NOTHING = (0.0,)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One answered request, in ms: in the engine, in the queue, and everywhere else between being due and answered.
    `batch` is how many requests ran together.
    """

    engine_ms: float
    queue_ms: float
    outside_ms: float
    batch: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """A server as it was seen, beside its clients: `times` as at rest but as long as they took there, in ms outside of
    queue and engine with an idle server and with a busy one, and how many requests it carried.
    """

    times: tuple[ServiceTimes, ...]
    outside_alone_ms: tuple[float, ...]
    outside_busy_ms: tuple[float, ...]
    capacity_rps: float


def beside_of(
    times: Sequence[ServiceTimes], serving: Serving, light: Sequence[Seen], full: Sequence[Seen], capacity_rps: float
) -> Beside:
    """Join what was measured at rest (`times`, all layouts) with what was seen of one layout, in order of time: under
    few requests and with every instance busy.

    What was not seen, other layouts and other batches, is taken to be as much slower as what was.
    """
    alone = _series([one for one in light if one.queue_ms == 0.0 and one.batch == 1]) or _series(light)
    busy = {size: _series([one for one in full if one.batch == size]) for size in {one.batch for one in full}}
    busy = {size: series for size, series in busy.items() if len(series) >= _ENOUGH}
    own = [item for item in times if (item.instances, item.threads) == (serving.instances, serving.threads)]
    slower_alone = _ratio([(alone, item.alone_ms or item.busy_ms) for item in own if item.batch == 1])
    slower_busy = _ratio([(busy[item.batch], item.busy_ms) for item in own if item.batch in busy])

    def moved(item: ServiceTimes) -> ServiceTimes:
        seen = item in own
        return msgspec.structs.replace(
            item,
            alone_ms=alone
            if seen and alone and item.batch == 1
            else _times(item.alone_ms or item.busy_ms, slower_alone),
            busy_ms=busy[item.batch] if seen and item.batch in busy else _times(item.busy_ms, slower_busy),
        )

    return Beside(
        times=tuple(moved(item) for item in times),
        outside_alone_ms=tuple(one.outside_ms for one in light) or _NOTHING,
        outside_busy_ms=tuple(one.outside_ms for one in full) or _NOTHING,
        capacity_rps=capacity_rps,
    )


def drifts(capacities_rps: Sequence[float]) -> list[float]:
    """How the speed of the machine changed from each look to the next: what a prediction has to reckon with, since it is
    made before its load. 1.0 is no change, and all that is known after one look.
    """
    return [later / before for before, later in zip(capacities_rps, capacities_rps[1:], strict=False)] or [1.0]


def _series(seen: Sequence[Seen]) -> tuple[float, ...]:
    """Engine times in order, each batch once: its requests stand next to each other and have one time."""
    times = [one.engine_ms for one in seen]
    return tuple(time for at, time in enumerate(times) if seen[at].batch == 1 or at == 0 or time != times[at - 1])


def _ratio(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float:
    """By how much means as seen exceed those at rest; 1 where nothing was seen."""
    found = [float(np.mean(seen) / np.mean(rest)) for seen, rest in pairs if len(seen) and len(rest)]
    return float(np.median(found)) if found else 1.0


def _times(values: Sequence[float], by: float) -> tuple[float, ...]:
    return tuple(value * by for value in values)
