"""How long a batch takes: a table by variant, batch size and shape, seeded by measurements, corrected by what runs.

Where nothing was measured, what an engine ran before it took requests stands in for it. Sizes between measured ones are
interpolated, larger ones grow in proportion. Each cell keeps the ratio of what is seen to what was measured and its
mean absolute deviation, both exponentially weighted: the estimator of round-trip times (Jacobson, "Congestion Avoidance
and Control", 1988). A cell that was not seen takes the ratio of its variant.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Mapping, Sequence
from statistics import mean, median

from hasten.serve.policy import Rung
from hasten.serve.sizes import Sizes, compared
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
        off = seconds / self.seed - self.ratio
        deviation = self.deviation + _DEVIATION_WEIGHT * (abs(off) - self.deviation)
        self.set(self.ratio + _WEIGHT * off, deviation)


class _Curve:
    """Measured sizes of one variant, ascending, with seconds; and what its batches were like on the whole. `known`
    says whether there is any.
    """

    __slots__ = ("_seeds", "known", "overall", "points", "seeded")

    def __init__(self, points: Sequence[tuple[int, float]], deviation: float) -> None:
        self.points = sorted(points)
        self.known = self.seeded = bool(points)
        self._seeds: dict[int, float] = {}
        self.overall = _Cell(1.0, 1.0, deviation)

    def add(self, rows: int, seconds: float) -> None:
        insort(self.points, (rows, seconds))
        self.known = True
        self._seeds.clear()

    def seed(self, rows: int) -> float:
        """The same as `seconds`, remembered for the sizes that are asked for again and again."""
        found = self._seeds.get(rows)
        if found is None:
            if len(self._seeds) >= _MOST_SIZES:
                self._seeds.clear()
            found = self._seeds[rows] = self.seconds(rows)
        return found

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


class _Times:
    """The batches of one variant and shape: a cell for each size that was seen, and for the others the curve, corrected
    by what the variant's batches were like on the whole. `sizes` finds out how many rows make a full batch, where that
    is asked for.
    """

    __slots__ = ("cells", "curve", "due", "full", "sizes")

    def __init__(self, curve: _Curve, most: int, *, compare: bool) -> None:
        self.curve = curve
        self.cells: dict[int, _Cell] = {}
        sizes = compared(most)
        # Of a curve that was made here, what lies between its points is no measurement.
        points = {rows for rows, _ in curve.points}
        measured = {rows: curve.seconds(rows) for rows in sizes if curve.seeded or rows in points}
        self.sizes = Sizes(most, measured) if compare and most > 1 else None
        self.full = self.sizes.best if self.sizes else most
        self.due = self.sizes is not None and self.sizes.due

    @property
    def known(self) -> bool:
        """Whether anything of the variant was measured or seen: a guess refuses nobody."""
        return self.curve.known

    def warm(self, rows: int, seconds: Sequence[float]) -> None:
        if self.sizes is not None:
            self.sizes.warm(rows, seconds)
            self.full, self.due = self.sizes.best, self.sizes.due

    def learn(self, rows: int, seconds: float) -> None:
        if self.sizes is not None:
            self.sizes.learn(rows, seconds)
            self.full, self.due = self.sizes.best, self.sizes.due

    def next(self, waiting: int) -> int:
        """How many rows make a full batch now, so many being there."""
        if self.sizes is None:
            return self.full
        rows = self.sizes.next(waiting)
        self.due = self.sizes.due
        return rows

    def mean(self, rows: int) -> float:
        """How long so many rows take on average, in seconds."""
        cell = self.cells.get(rows)
        return self.curve.seed(rows) * self.curve.overall.mean if cell is None else cell.mean

    def bound(self, rows: int) -> float:
        """How long so many rows take at most, but for rare cases, in seconds."""
        cell = self.cells.get(rows)
        return self.curve.seed(rows) * self.curve.overall.bound if cell is None else cell.bound


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
        # In the order in which they were first seen.
        self._cells: dict[tuple[str, int, Hashable], _Cell] = {}
        self._shapes: dict[Hashable, dict[str, _Times]] = {}
        self._most, self._compare = 1, False

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

    def bind(self, max_batch: int, *, compare: bool) -> None:
        """Batches have at most so many rows; `compare` finds out how many are worth their time. Call it before anything
        is learned.
        """
        self._most, self._compare = max_batch, compare
        self._cells.clear()
        self._shapes.clear()

    def of(self, key: Hashable) -> Mapping[str, _Times]:
        """What is known of batches of one shape, by variant: to be kept by whoever asks more than once."""
        found = self._shapes.get(key)
        if found is None:
            if len(self._shapes) >= 2 * _MOST_CELLS:
                self._shapes = {
                    shape: some for shape, some in self._shapes.items() if any(times.cells for times in some.values())
                }
            found = self._shapes[key] = {
                variant: _Times(curve, self._most, compare=self._compare) for variant, curve in self._curves.items()
            }
        return found

    def knows(self, variant: str) -> bool:
        """Whether anything was measured or seen: a guess refuses nobody."""
        return self._curves[variant].known

    def seconds(self, variant: str, rows: int, key: Hashable) -> float:
        """How long such a batch takes on average."""
        return self.of(key)[variant].mean(rows)

    def bound(self, variant: str, rows: int, key: Hashable) -> float:
        """How long such a batch takes at most, but for rare cases."""
        return self.of(key)[variant].bound(rows)

    def warm(self, variant: str, rows: int, key: Hashable, seconds: Sequence[float]) -> None:
        """Batches took so long before there were requests; of sizes that have run since, that says nothing new."""
        times = self.of(key)[variant]
        if rows in times.cells or min(seconds) <= 0:
            return
        if not times.curve.seeded and all(size != rows for size, _ in times.curve.points):
            # What disturbs a run makes it longer only, and the first one also loads and compiles.
            times.curve.add(rows, min(seconds))
        times.warm(rows, seconds)

    def learn(self, variant: str, rows: int, key: Hashable, seconds: float) -> None:
        """A batch took so long."""
        if seconds <= 0:
            return
        times = self.of(key)[variant]
        curve, cells = times.curve, times.cells
        times.learn(rows, seconds)
        if not curve.seeded and len(curve.points) < _MOST_SIZES and all(size != rows for size, _ in curve.points):
            curve.add(rows, seconds)
        cell = cells.get(rows)
        if cell is None:
            cell = _Cell(curve.seconds(rows), curve.overall.ratio, curve.overall.deviation)
            if len(self._cells) >= _MOST_CELLS:
                self._forget(next(iter(self._cells)))
            self._cells[variant, rows, key] = cells[rows] = cell
        curve.overall.learn(seconds / cell.seed)
        cell.learn(seconds)

    def _forget(self, place: tuple[str, int, Hashable]) -> None:
        variant, rows, key = place
        del self._cells[place]
        del self._shapes[key][variant].cells[rows]
