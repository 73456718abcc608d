"""Which requests of one line (one lane, one shape) go to the engine together, and whether waiting for company pays.

Deferring follows Symphony (Chen et al., 2023): a batch may be sent later where deadlines allow it, never where engines
are idle. A request that would hold a full batch back is given up early, as in Nexus (Shen et al., SOSP 2019). Pure:
time comes in as an argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple

from hasten.serve.policy import Policy
from hasten.serve.waiting import Waiting

__all__ = ["Batcher", "Formed"]

# A smaller batch is sent for the sake of its first deadline where it works at this share of a full one's rate.
_WORTH = 0.7
# Company that has not come after so many expected gaps is not coming.
_GAPS = 2.0
_GAP_WEIGHT = 0.1
_MOST_SHAPES = 256


class Formed(NamedTuple):
    """A batch to send now, or the time until which waiting pays, or requests that no batch can answer in time.

    The batch is `closed` because it is full, a deadline leaves no time for more, waiting for company is over (delay),
    the server drains, or an engine is free and nothing is waited for.
    """

    batch: list[Waiting]
    until: float | None = None
    late: tuple[Waiting, ...] = ()
    closed: str = ""


class Batcher:
    """Forms batches of at most so many rows; a single request of more runs alone."""

    def __init__(self, policy: Policy) -> None:
        self._max_delay_s = policy.max_delay_s
        # Where nobody ever waits for company, nobody asks how often it comes.
        self._adaptive = policy.company == "adaptive" and policy.max_delay_s > 0
        # When the last request of a shape came, and the mean gap between two.
        self._gaps: dict[Hashable, tuple[float, float]] = {}

    def arrived(self, key: Hashable, now: float) -> None:
        """Learn how often company comes."""
        if not self._adaptive:
            return
        last = self._gaps.pop(key, None)
        if last is None:
            if len(self._gaps) >= _MOST_SHAPES:
                del self._gaps[next(iter(self._gaps))]
            self._gaps[key] = (now, math.inf)
            return
        gap = now - last[0]
        self._gaps[key] = (now, gap if last[1] == math.inf else last[1] + _GAP_WEIGHT * (gap - last[1]))

    def form(
        self,
        line: Iterable[Waiting],
        now: float,
        seconds: Callable[[int], float],
        most: int,
        *,
        company: Iterable[Waiting] = (),
        strict: bool = False,
        at_once: bool = False,
        idle: bool = False,
    ) -> Formed:
        """Decide about the next batch of a line that is not empty. `seconds` is how long so many rows take at most,
        `most` how many rows make a full batch now.

        `company` are requests of other lines that may fill the batch up. `strict` gives up what would be late,
        `at_once` waits for nobody, `idle` says that no engine runs anything.
        """
        batch, rows, earliest = self._fit(line, most)
        run = seconds(rows)
        if strict and earliest < now + run:
            timely = self._timely(batch, now, seconds, full=rows >= most)
            if not timely:
                return Formed([], late=(batch[0],))
            if len(timely) < len(batch):
                return Formed(timely, closed="deadline")
        if rows < most and company:
            fitted, rows = rows, self._fill(batch, rows, most, company, now, seconds, strict)
            if rows > fitted:
                run = seconds(rows)
        if at_once or rows >= most or not self._max_delay_s:
            return Formed(batch, closed="full" if rows >= most else "drain" if at_once else "free")
        until = self._until(batch, rows, run, seconds, idle)
        return Formed(batch, closed="delay") if now >= until else Formed([], until)

    def _fit(self, line: Iterable[Waiting], most: int) -> tuple[list[Waiting], int, float]:
        """The first requests that fit, their rows and first deadline; a later, smaller one may join where one does
        not.
        """
        batch: list[Waiting] = []
        rows, earliest = 0, math.inf
        for request in line:
            if batch and rows + request.rows > most:
                continue
            batch.append(request)
            rows += request.rows
            if request.deadline < earliest:
                earliest = request.deadline
            if rows >= most:
                break
        return batch, rows, earliest

    def _fill(
        self,
        batch: list[Waiting],
        rows: int,
        most: int,
        company: Iterable[Waiting],
        now: float,
        seconds: Callable[[int], float],
        strict: bool,
    ) -> int:
        """Add company as long as it fits and makes nobody late; return the rows."""
        earliest = math.inf
        for request in batch:
            if request.deadline < earliest and not request.trial:
                earliest = request.deadline
        for request in company:
            more = rows + request.rows
            if more > most:
                continue
            soonest = earliest if earliest < request.deadline else request.deadline
            if strict and now + seconds(more) > soonest:
                # Whoever is late alone is found out as the head of its own lane.
                if now + seconds(rows + 1) > earliest:
                    break
                continue
            batch.append(request)
            rows = more
            earliest = soonest
            if rows >= most:
                break
        return rows

    def _timely(
        self, batch: list[Waiting], now: float, seconds: Callable[[int], float], *, full: bool
    ) -> list[Waiting]:
        """The longest beginning of the batch that meets all its deadlines, or nothing: then the first is given up."""
        best, best_rows, taken, earliest = 0, 0, 0, math.inf
        for count, request in enumerate(batch, start=1):
            taken += request.rows
            if not request.trial:
                earliest = min(earliest, request.deadline)
            if now + seconds(taken) <= earliest:
                best, best_rows = count, taken
        if best == len(batch) or not best:
            return batch[:best]
        if full and best_rows / seconds(best_rows) < _WORTH * taken / seconds(taken):
            return []
        return batch[:best]

    def _until(self, batch: list[Waiting], rows: int, run: float, seconds: Callable[[int], float], idle: bool) -> float:
        """Until when company is waited for, where the batch takes `run` seconds: the past for not at all."""
        expected = math.inf
        if self._adaptive:
            if idle:
                return -math.inf
            last, gap = self._gaps.get(batch[0].key, (0.0, math.inf))
            # The engine rests for a gap and saves what a run of its own would have cost the next one.
            if gap >= run + seconds(1) - seconds(rows + 1):
                return -math.inf
            expected = last + _GAPS * gap
        first, earliest = batch[0].arrived, batch[0].deadline
        for request in batch:
            if request.arrived < first:
                first = request.arrived
            if request.deadline < earliest:
                earliest = request.deadline
        return min(first + self._max_delay_s, earliest - run, expected)
