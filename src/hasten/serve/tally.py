"""Counts what one service does, for the protocol's statistics. Refusals and expired requests count as failures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from hasten.spec.statistics import BatchStatistics, Duration, Statistics

__all__ = ["Tally"]


class Tally:
    """Sums since the start. Times come in as seconds; `wall` is seconds since 1970."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._success_s = self._fail_s = self._queue_s = self._engine_s = 0.0
        self._successes = self._failures = 0
        self._batches: dict[int, list[float]] = {}
        self._last = 0.0

    def ran(self, arrived: Sequence[float], started: float, finished: float) -> None:
        """Count a batch of requests that arrived, started and finished at these times of one clock."""
        if not arrived:
            return
        waited = sum(started - at for at in arrived)
        took = finished - started
        self._successes += len(arrived)
        self._queue_s += waited
        self._engine_s += took * len(arrived)
        self._success_s += waited + took * len(arrived)
        count_and_time = self._batches.setdefault(len(arrived), [0, 0.0])
        count_and_time[0] += 1
        count_and_time[1] += took
        self._last = self._wall()

    def failed(self, seconds: float) -> None:
        """Count a request that got an error after so long."""
        self._failures += 1
        self._fail_s += seconds

    def statistics(self) -> Statistics:
        """Return the sums."""
        return Statistics(
            success=_duration(self._successes, self._success_s),
            fail=_duration(self._failures, self._fail_s),
            queue=_duration(self._successes, self._queue_s),
            engine=_duration(self._successes, self._engine_s),
            batches=tuple(
                BatchStatistics(batch=size, engine=_duration(int(count), took))
                for size, (count, took) in sorted(self._batches.items())
            ),
            last_inference_ms=round(1e3 * self._last),
        )


def _duration(count: int, seconds: float) -> Duration:
    return Duration(count=count, ns=round(1e9 * seconds))
