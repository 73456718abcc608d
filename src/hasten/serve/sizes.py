"""How many rows a batch should have: as many as give the most rows per second, which need not be the most allowed.

Where a row's data no longer fits a cache beside its neighbours', a full batch takes longer a row than a small one.
Powers of two and the most allowed are compared, once there was a full batch: until then, what is there goes together.
What the engine ran before it took requests counts as tried. What nothing is known of is tried a few times when enough
rows wait, and what was not run for long is tried again, so that one bad second decides nothing for ever. Pure: time is
the engine's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ["Sizes", "compared"]

# Of sizes that are as good as the best within this share, the largest is taken.
_AS_GOOD = 0.98
_TRIES = 3
_WEIGHT, _STALE_WEIGHT = 0.1, 0.5
# A single run counts as at most so many times the mean: another process may have had the core.
_MOST_OFF = 1.5
# A size is tried again after so many engine seconds, and not before as many as so many of its runs would take.
_STALE_S, _STALE_RUNS = 10.0, 50.0
# Of what runs all the time, only every so many batches can change what is best.
_SELDOM = 8


def compared(most: int) -> list[int]:
    """The sizes that are compared where at most so many rows are allowed."""
    return sorted({most, *(2**power for power in range(most.bit_length()))})


class _Size:
    """`mean` are seconds, 0 where nothing is known; `due_s` is when it is to be tried again, in engine seconds."""

    __slots__ = ("due_s", "mean", "rows", "runs", "stale", "tries")

    def __init__(self, rows: int, mean: float) -> None:
        self.rows = rows
        self.mean = mean
        self.runs = 0
        self.tries = _TRIES if mean else 0
        self.stale = False
        self.due_s = _STALE_S if mean else 0.0

    def tried(self, now_s: float) -> None:
        self.stale = self.tries >= _TRIES
        self.tries += 1
        if self.tries >= _TRIES:
            self.due_s = now_s + max(_STALE_S, _STALE_RUNS * self.mean)

    def warm(self, seconds: Sequence[float], now_s: float) -> None:
        self.mean = min(seconds)
        self.runs = min(len(seconds), _TRIES)
        self.tries = max(self.tries, self.runs)
        if self.tries >= _TRIES:
            self.due_s = now_s + max(_STALE_S, _STALE_RUNS * self.mean)

    def learn(self, seconds: float, now_s: float) -> None:
        if self.runs < _TRIES:
            # What disturbs a run makes it longer only.
            self.mean = min(self.mean, seconds) if self.runs else seconds
        else:
            weight = _STALE_WEIGHT if self.stale else _WEIGHT
            self.mean += weight * (min(seconds, _MOST_OFF * self.mean) - self.mean)
        self.runs += 1
        self.stale = False
        if self.tries >= _TRIES:
            self.due_s = now_s + max(_STALE_S, _STALE_RUNS * self.mean)


class Sizes:
    """Batch sizes of one variant and shape, of at most `most` rows; `best` is the one to count on, `due` says that
    others may be due to be tried. `measured` has the seconds of sizes where they are known beforehand; the first run
    here replaces them.
    """

    __slots__ = ("_due_s", "_now_s", "_runs", "_sizes", "best", "due", "most")

    def __init__(self, most: int, measured: Mapping[int, float]) -> None:
        self.most = most
        self._sizes = {rows: _Size(rows, measured.get(rows, 0.0)) for rows in compared(most)}
        self._now_s = 0.0
        self._runs = 0
        self._choose()

    def next(self, waiting: int) -> int:
        """The size to run now, so many rows being there: the best, or one that it is time to try."""
        for size in self._sizes.values():
            if size.rows > waiting or not self.due:
                break
            if size.due_s <= self._now_s and (size.tries < _TRIES or size.rows != self.best):
                # Counted here: where requests have many rows, it may come to another size.
                size.tried(self._now_s)
                self._look()
                return size.rows
        return self.best

    def warm(self, rows: int, seconds: Sequence[float]) -> None:
        """Batches of so many rows took so long before there were requests: each is a try less to make under load."""
        size = self._sizes.get(rows)
        if size is not None:
            size.warm(seconds, self._now_s)
            self._choose()

    def learn(self, rows: int, seconds: float) -> None:
        """A batch of so many rows took so long."""
        self._now_s += seconds
        self._runs += 1
        size = self._sizes.get(rows)
        if size is not None:
            size.learn(seconds, self._now_s)
            if size.runs <= _TRIES or not self._runs % _SELDOM:
                self._choose()
        if self._now_s >= self._due_s:
            self.due = True

    def _choose(self) -> None:
        rates = {size.rows: size.rows / size.mean for size in self._sizes.values() if size.mean}
        if self.most in rates:
            enough = _AS_GOOD * max(rates.values())
            self.best = max(rows for rows, rate in rates.items() if rate >= enough)
        else:
            self.best = self.most
        self._look()

    def _look(self) -> None:
        """When the next size is due."""
        if not self._sizes[self.most].mean:
            self._due_s, self.due = math.inf, False
            return
        self._due_s = min(size.due_s for size in self._sizes.values() if size.tries < _TRIES or size.rows != self.best)
        self.due = self._due_s <= self._now_s
