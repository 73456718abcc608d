"""What the runs say, held against the bars of `make bench-overload`. Pure.

A ratio of medians over rounds is judged by its value, and so is a ratio over turns, which is open where the value
misses the bar and the interval reaches it. A share of requests is judged by its value with a Wilson interval beside it:
99.9 % of a few hundred requests proves little, and the page says so.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hasten.stats.change import share
from hasten.stats.ratio import speedup
from overloading.outcome import Outcome

__all__ = ["BARE", "HASTEN", "TELLING", "Bar", "Cell", "Found", "Lone", "Setting", "bars"]

GOODPUT, CRITICAL, BACKGROUND, REFUSED_MS, LADDER, RECOVERY_S, LONE_MS, BATCHER = (
    0.95,
    0.999,
    0.05,
    5.0,
    0.99,
    10.0,
    1.0,
    0.97,
)
LADDER_LOAD = 1.5
# A server that answers this share of what is offered in time is not overloaded: then nothing was shown.
_SATED = 0.95
# Those that every lone request is sent to.
HASTEN, BARE = "hasten", "behind a bare socket"
# Of fewer requests without a miss, one cannot tell 99.9 % from less.
TELLING = 1000


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a run stands: the server, the process of arrivals, the load as a multiple of the capacity."""

    server: str
    kind: str
    load: float


@dataclass(frozen=True, slots=True)
class Setting:
    """A fixed (batch, delay), or the scheduler's own choice where `batch` is 0."""

    batch: int
    delay_ms: float

    def __str__(self) -> str:
        return f"{self.batch} rows, {self.delay_ms:g} ms" if self.batch else "adaptive"


ADAPTIVE = Setting(0, 0.0)


@dataclass(frozen=True, slots=True)
class Lone:
    """Lone requests to one launch of all, in ms: how long the engine alone takes, and what each server (`HASTEN`) and
    the engine behind a `BARE` socket take beyond it, medians over pairs of neighbours.
    """

    engine: float
    beyond: Mapping[str, float]


@dataclass(slots=True)
class Found:
    """All of one model. Lists grow by one entry a round, those of `batcher` with each turn of it, `lone` with
    each launch; `crowd` is
    critical work under background that saturates, `troubles` says what could not be run, `took_s` how long all of it
    took. `capacity` is that of the present round.
    """

    model: str
    capacity: float
    batch_s: float
    own_capacity: dict[str, float] = field(default_factory=dict)
    runs: dict[Cell, list[Outcome]] = field(default_factory=lambda: defaultdict(list))
    crowd: dict[str, list[Outcome]] = field(default_factory=lambda: defaultdict(list))
    batcher: dict[tuple[Setting, float], list[float]] = field(default_factory=lambda: defaultdict(list))
    lone: list[Lone] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    top_accuracy: float = math.nan
    recovery: list[float] = field(default_factory=list)
    capacities: list[float] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    took_s: float = 0.0

    def goodput(self, server: str, kind: str) -> dict[float, float]:
        """Goodput by load, medians over rounds."""
        loads = sorted({cell.load for cell in self.runs if (cell.server, cell.kind) == (server, kind)})
        return {load: middle(one.goodput for one in self.runs[Cell(server, kind, load)]) for load in loads}

    def throughput(self, setting: Setting) -> dict[float, float]:
        """Answers per second by load, medians over rounds."""
        return {load: middle(rates) for (one, load), rates in sorted(self.batcher.items(), key=str) if one == setting}


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar and what was found; `met` is None where nothing was measured, or, with `open`, where its value misses
    the bar and its interval reaches it.
    """

    name: str
    model: str
    asked: str
    found: str
    met: bool | None
    open: bool = False

    @property
    def word(self) -> str:
        """The verdict."""
        return "open" if self.open else {True: "met", False: "missed", None: "not measured"}[self.met]


def bars(found: Found) -> list[Bar]:
    """Every bar for one model."""
    return [
        *(_goodput(found, kind) for kind in sorted({cell.kind for cell in found.runs if cell.server == HASTEN})),
        *_crowd(found),
        _refusals(found),
        *_ladder(found),
        _lone(found),
        *_batcher(found),
    ]


def middle(values: Iterable[float]) -> float:
    """The median; NaN of nothing."""
    listed = list(values)
    return statistics.median(listed) if listed else math.nan


def proportion(good: int, of: int) -> str:
    """A share with its interval."""
    if not of:
        return "no request"
    figure = share(np.repeat([1.0, 0.0], [good, of - good]))
    return f"{good / of:.2%} [{figure.low or 0:.2%}, {figure.high or 0:.2%}] of {of:,}"


def _goodput(found: Found, kind: str) -> Bar:
    by_load = found.goodput(HASTEN, kind)
    top, best = max(by_load), max(by_load.values())
    kept = by_load[top] / best if best else math.nan
    at_top, at_best = (
        [one.goodput for one in found.runs[Cell(HASTEN, kind, load)]]
        for load in (top, max(by_load, key=lambda load: by_load[load]))
    )
    words = f"{kept:.1%}: {by_load[top]:.1f}/s of {best:.1f}/s{_turns(at_top, at_best)}"
    # Beside itself alone, a load keeps all of its goodput.
    loaded = len(by_load) > 1 and overloaded(found.runs[Cell(HASTEN, kind, top)])
    return Bar(
        f"goodput at {top:g} x, {kind}",
        found.model,
        f">= {GOODPUT:.0%} of the most",
        words if loaded else f"{words}; not overloaded, or no load beside it",
        kept >= GOODPUT if loaded else None,
    )


def _turns(mine: Sequence[float], other: Sequence[float]) -> str:
    """How far single turns were apart, each paired with its own."""
    shares = [one / best for one, best in zip(mine, other, strict=False) if best]
    return f" ({min(shares):.1%} to {max(shares):.1%} in {len(shares)} turns)" if len(shares) > 1 else ""


def overloaded(runs: Sequence[Outcome]) -> bool:
    """Whether more was offered than was answered in time."""
    return middle(one.goodput for one in runs) < _SATED * middle(one.offered for one in runs)


def _crowd(found: Found) -> list[Bar]:
    runs = found.crowd.get("hasten", [])
    good, of = sum(one.good[0] for one in runs), sum(one.due[0] for one in runs)
    part, loaded = middle(one.share(2) for one in runs), bool(runs) and overloaded(runs)
    note = "" if loaded or not runs else "; it was not overloaded"
    # A share that is missed is missed however few they are; one that is met needs enough of them.
    enough = loaded and (of >= TELLING or good < of)
    if loaded and not enough:
        note = f"; at least {TELLING:,} are needed to tell"
    return [
        Bar(
            "critical lane while background saturates",
            found.model,
            f">= {CRITICAL:.1%}",
            proportion(good, of) + note,
            good / of >= CRITICAL if enough else None,
        ),
        Bar(
            "background while it saturates",
            found.model,
            f">= {BACKGROUND:.0%} of answers",
            f"{part:.1%}{note if not loaded else ''}",
            part >= BACKGROUND if loaded else None,
        ),
    ]


def refused_ms(runs: Sequence[Outcome]) -> np.ndarray[Any, Any]:
    """Times of all refusals on arrival."""
    return np.concatenate([one.refused_ms for one in runs]) if runs else np.empty(0)


def _refusals(found: Found) -> Bar:
    runs = [one for cell, some in found.runs.items() if cell.server == HASTEN for one in some]
    times = refused_ms([*runs, *found.crowd.get("hasten", [])])
    if not times.size:
        return Bar("refusals, p99", found.model, f"< {REFUSED_MS:g} ms", "none was refused on arrival", None)
    p50, p99 = np.percentile(times, [50, 99])
    words = f"{p99:.2f} ms (p50 {p50:.2f} ms) of {times.size:,}"
    return Bar("refusals, p99", found.model, f"< {REFUSED_MS:g} ms", words, bool(p99 < REFUSED_MS))


def _ladder(found: Found) -> list[Bar]:
    runs = found.runs.get(Cell("hasten, ladder", "poisson", LADDER_LOAD), [])
    good, of = sum(sum(one.good) for one in runs), sum(sum(one.due) for one in runs)
    words = proportion(good, of)
    if found.accuracy:
        words += f"; effective accuracy {middle(found.accuracy):.4f}, top variant {found.top_accuracy:.4f}"
    slowest = max(found.recovery, default=math.nan)
    return [
        Bar(
            f"attainment with the ladder at {LADDER_LOAD:g} x, poisson", found.model, f">= {LADDER:.0%}", words,
            good / of >= LADDER if of else None,
        ),
        Bar(
            "back at the top variant after a step", found.model, f"<= {RECOVERY_S:g} s",
            f"{slowest:.2f} s, the slowest of {len(found.recovery)}" if found.recovery else "no step down was seen",
            slowest <= RECOVERY_S if found.recovery else None,
        ),
    ]  # fmt: skip


def _lone(found: Found) -> Bar:
    if not found.lone:
        return Bar("a lone request, p50", found.model, f"<= engine + {LONE_MS:g} ms", "not measured", None)
    each = [one.beyond[HASTEN] for one in found.lone]
    more, engine = middle(each), middle(one.engine for one in found.lone)
    words = f"{more:+.2f} ms ({min(each):+.2f} to {max(each):+.2f} in {len(each)} launches): engine {engine:.2f} ms"
    for side in found.lone[0].beyond:
        if side != HASTEN:
            words += f", {side} {middle(one.beyond[side] for one in found.lone):+.2f} ms"
    return Bar("a lone request, p50", found.model, f"<= engine + {LONE_MS:g} ms", words, more <= LONE_MS)


def _batcher(found: Found) -> list[Bar]:
    """A bar for each load. The best of several noisy settings looks better than it is on the turns that made it the
    best: it is looked for on every other turn, and judged on the turns between.
    """
    asked = f">= {BATCHER:.0%} of the best fixed setting"
    loads = sorted({load for setting, load in found.batcher if setting == ADAPTIVE})
    if not loads:
        return [Bar("batcher", found.model, asked, "not measured", None)]
    return [_batcher_at(found, load, asked) for load in loads]


def _batcher_at(found: Found, load: float, asked: str) -> Bar:
    name, own = f"batcher at {load:g} x", found.batcher[ADAPTIVE, load]
    fixed = {one: rates for (one, at), rates in found.batcher.items() if at == load and one != ADAPTIVE}
    turns = min(map(len, (own, *fixed.values())))
    pairs, rivals = list[tuple[float, float]](), set[Setting]()
    for turn in range(turns if fixed else 0):
        best = _best({one: [rates[at] for at in _others(turn, turns)] for one, rates in fixed.items()})[0]
        rivals.add(best)
        pairs.append((own[turn], fixed[best][turn]))
    if not pairs or not all(map(min, pairs)):
        return Bar(name, found.model, asked, "no fixed setting was measured", None)
    ratio = speedup([1 / other for _, other in pairs], [1 / mine for mine, _ in pairs])
    value = middle(mine / other for mine, other in pairs) if ratio.value is None else ratio.value
    words = f"{value:.1%}" if ratio.low is None else f"{value:.1%} ({ratio.low:.1%} to {ratio.high:.1%})"
    words += f" in {len(pairs)} turns, of {' and '.join(sorted(map(str, rivals)))}"
    # Where the bar lies within the interval, noise decides.
    open_ = ratio.low is not None and ratio.high is not None and value < BATCHER <= ratio.high
    return Bar(name, found.model, asked, words, None if open_ else value >= BATCHER, open_)


def _others(turn: int, turns: int) -> list[int]:
    """The turns that choose for a turn: those of the other parity; itself where there is no other."""
    return [at for at in range(turns) if (at - turn) % 2] or [turn]


def _best(rates: Mapping[Setting, Sequence[float]]) -> tuple[Setting, float]:
    middles = {one: middle(some) for one, some in rates.items()}
    best = max(middles, key=lambda one: middles[one], default=ADAPTIVE)
    return best, middles.get(best, 0.0)


def best_fixed(found: Found, load: float) -> tuple[Setting, float]:
    """The fixed setting with the most answers per second at a load."""
    return _best({one: some for (one, at), some in found.batcher.items() if at == load and one != ADAPTIVE})
