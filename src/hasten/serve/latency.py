"""How long a batch takes: a table by variant, batch size and shape, seeded by measurements, corrected by what runs.

Sizes between measured ones are interpolated, larger ones grow in proportion. Each cell keeps the ratio of what is seen
to what was measured and its mean absolute deviation, both exponentially weighted: the estimator of round-trip times
(Jacobson, "Congestion Avoidance and Control", 1988). A cell that was not seen takes the ratio of its variant.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Mapping, Sequence
from statistics import mean, median

from hasten.serve.policy import Rung
from hasten.spec.serving import ServiceTimes, Serving

__all__ = ["GUESS_S", "LatencyTable"]

# What a row is taken to cost before anything is known, in seconds.
GUESS_S = 0.01
_WEIGHT, _DEVIATION_WEIGHT = 0.1, 0.1
# How far a single run may be off before its spread is known.
_UNMEASURED = 0.25
# So many deviations above the mean are called the bound: on normal noise 3 of them are 2.4 standard deviations.
_BOUND = 3.0
# Shapes come from clients: the table must not grow with their imagination.
_MOST_CELLS, _MOST_SIZES = 512, 64


class _Cell:
    """Ratio to the measured time, its deviation, and both multiplied out: seconds on average and at most."""

    __slots__ = ("bound", "deviation", "mean", "ratio", "seed")

    def __init__(self, seed: float, ratio: float, deviation: float) -> None:
        self.seed = seed
        self.set(ratio, deviation)

    def set(self, ratio: float, deviation: float) -> None:
        self.ratio, self.deviation = ratio, deviation
        self.mean = self.seed * ratio
        self.bound = self.seed * (ratio + _BOUND * deviation)

    def learn(self, seconds: float) -> None:
        seen = seconds / self.seed
        deviation = self.deviation + _DEVIATION_WEIGHT * (abs(seen - self.ratio) - self.deviation)
        self.set(self.ratio + _WEIGHT * (seen - self.ratio), deviation)


class _Curve:
    """Measured sizes of one variant, ascending, with seconds; and what its batches were like on the whole."""

    def __init__(self, points: Sequence[tuple[int, float]], deviation: float) -> None:
        self.points = sorted(points)
        self.seeded = bool(points)
        self.overall = _Cell(1.0, 1.0, deviation)

    def seconds(self, rows: int) -> float:
        points = self.points
        if not points:
            return GUESS_S * rows
        place = bisect_left(points, (rows, 0.0))
        if place == len(points):
            size, seconds = points[-1]
            return seconds * rows / size
        above_rows, above = points[place]
        if above_rows == rows or place == 0:
            return above
        below_rows, below = points[place - 1]
        return below + (above - below) * (rows - below_rows) / (above_rows - below_rows)


class _Bounds(dict[int, float]):
    """Bounds of one variant and shape by rows, each worked out when it is asked for."""

    def __init__(self, cell: Callable[[str, int, Hashable], _Cell], variant: str, key: Hashable) -> None:
        super().__init__()
        self._cell, self._variant, self._key = cell, variant, key

    def __missing__(self, rows: int) -> float:
        found = self[rows] = self._cell(self._variant, rows, self._key).bound
        return found


class LatencyTable:
    """Seconds of batches by variant, rows and shape key. `measured` holds points (rows, seconds) for each variant;
    `spread` the mean absolute deviation of single runs, as a share of their median.

    A variant that was not measured starts as the first rung divided by its speed, and learns from what runs.
    """

    def __init__(
        self,
        measured: Mapping[str, Sequence[tuple[int, float]]] | None = None,
        ladder: Sequence[Rung] = (Rung(variant=""),),
        *,
        spread: float = 0.05,
    ) -> None:
        first = (measured or {}).get(ladder[0].variant, ())
        self._curves: dict[str, _Curve] = {}
        for rung in ladder:
            points = (measured or {}).get(rung.variant) or [(rows, s / rung.speed) for rows, s in first]
            self._curves[rung.variant] = _Curve(points, spread if points else _UNMEASURED)
        self._cells: dict[tuple[str, int, Hashable], _Cell] = {}
        self._guesses: dict[tuple[str, int], _Cell] = {}
        # What was asked for since the last batch, for the same is asked with every event.
        self._bounds: dict[tuple[str, Hashable], _Bounds] = {}

    @classmethod
    def of_times(
        cls, times: Mapping[str, Sequence[ServiceTimes]], serving: Serving, ladder: Sequence[Rung]
    ) -> LatencyTable:
        """Seed from what the bundle measured in the layout that is served: medians with all instances busy."""
        layout = (serving.instances, serving.threads)
        mine = {name: [t for t in some if (t.instances, t.threads) == layout] for name, some in times.items()}
        measured = {name: [(t.batch, median(t.busy_ms) / 1e3) for t in some] for name, some in mine.items() if some}
        spreads = [mean(abs(ms / median(t.busy_ms) - 1) for ms in t.busy_ms) for some in mine.values() for t in some]
        return cls(measured, ladder, spread=max(spreads, default=0.05))

    def knows(self, variant: str) -> bool:
        """Whether anything was measured or seen: a guess refuses nobody."""
        return bool(self._curves[variant].points)

    def seconds(self, variant: str, rows: int, key: Hashable) -> float:
        """How long such a batch takes on average."""
        return self._cell(variant, rows, key).mean

    def bound(self, variant: str, rows: int, key: Hashable) -> float:
        """How long such a batch takes at most, but for rare cases."""
        return self.bounds(variant, key)[rows]

    def bounds(self, variant: str, key: Hashable) -> Mapping[int, float]:
        """The same by rows, up to the next batch that is learnt from."""
        found = self._bounds.get((variant, key))
        if found is None:
            if len(self._bounds) >= _MOST_CELLS:
                self._bounds.clear()
            found = self._bounds[variant, key] = _Bounds(self._cell, variant, key)
        return found

    def _cell(self, variant: str, rows: int, key: Hashable) -> _Cell:
        return self._cells.get((variant, rows, key)) or self._guessed(variant, rows)

    def learn(self, variant: str, rows: int, key: Hashable, seconds: float) -> None:
        """A batch took so long."""
        if seconds <= 0:
            return
        curve = self._curves[variant]
        if not curve.seeded and len(curve.points) < _MOST_SIZES and all(size != rows for size, _ in curve.points):
            insort(curve.points, (rows, seconds))
        cell = self._cells.get((variant, rows, key))
        if cell is None:
            cell = _Cell(curve.seconds(rows), curve.overall.ratio, curve.overall.deviation)
            if len(self._cells) >= _MOST_CELLS:
                del self._cells[next(iter(self._cells))]
            self._cells[variant, rows, key] = cell
        curve.overall.learn(seconds / cell.seed)
        cell.learn(seconds)
        self._guesses.clear()
        self._bounds.clear()

    def _guessed(self, variant: str, rows: int) -> _Cell:
        """What was not seen: the curve, and what the variant's batches were like on the whole."""
        found = self._guesses.get((variant, rows))
        if found is None:
            curve = self._curves[variant]
            found = _Cell(curve.seconds(rows), curve.overall.ratio, curve.overall.deviation)
            self._guesses[variant, rows] = found
        return found
