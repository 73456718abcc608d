"""Overload in simulated time: what the scheduler makes of too much load, with made-up but realistic service times.

Run it with `make overload-sim`; it writes the tables of docs/scheduling.md. Nothing here runs a model or a server: the
decisions are those of the real scheduler, the seconds are invented, and so the figures say how decisions turn out and
not how fast anything is. What a server makes of it, `make bench-overload` measures.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from hasten.serve.core import Core, Dispatch, Lane, LatencyTable, Policy, Rung
from hasten.testing.replay import Arrival, Ended, Replayed, replay

PAGE = Path(__file__).parent.parent / "docs" / "scheduling.md"
BEGIN, END = "<!-- simulated: begin -->\n", "<!-- simulated: end -->\n"
SECONDS, LOADS = 36.0, (0.5, 1.0, 1.5, 2.0, 3.0)
KINDS = ("Poisson", "Gamma, CV 4", "MMPP", "step")
LADDER = (
    Rung(variant="f32", accuracy=0.900),
    Rung(variant="int8", speed=2.0, accuracy=0.895),
    Rung(variant="int8-small", speed=3.5, accuracy=0.870),
)
LANES = (
    Lane(name="critical", priority=1, deadline_s=0.25),
    Lane(name="standard", priority=2, deadline_s=0.5, accuracy_floor=0.89),
    Lane(name="background", priority=3, min_share=0.05, max_age_s=10.0, background=True),
)
MIX = (0.3, 0.4, 0.3)
# Engine seconds of a batch of the first variant, by rows; single runs vary by a log-normal factor.
BATCHES = [(1, 0.020), (2, 0.024), (4, 0.032), (8, 0.048)]
NOISE = 0.1
INSTANCES = 2
CAPACITY = INSTANCES * 8 / 0.048


def policy(*, ladder: bool) -> Policy:
    return Policy(
        instances=INSTANCES,
        max_batch=8,
        max_delay_s=0.01,
        company="adaptive",
        queue_capacity=1000,
        lanes=LANES,
        ladder=LADDER if ladder else LADDER[:1],
    )


def arrivals(kind: str, load: float, rng: np.random.Generator, seconds: float) -> list[float]:
    """Arrival times at so many times the capacity on average (steps: in the middle third; half of it before, after)."""
    rate = load * CAPACITY
    if kind == "Gamma, CV 4":
        return _within(rng.gamma(1 / 16, 16 / rate, int(2 * rate * seconds) + 2000), seconds)
    if kind == "Poisson":
        return _within(rng.exponential(1 / rate, int(2 * rate * seconds) + 100), seconds)
    if kind == "MMPP":
        # Two states of 1 s on average: a quarter of the rate, and seven quarters.
        spells, at = list[tuple[float, float]](), 0.0
        while at < seconds:
            length = float(rng.exponential(1.0))
            spells.append((length, rate * (0.25 if len(spells) % 2 else 1.75)))
            at += length
    else:
        spells = [(seconds / 3, 0.5 * CAPACITY), (seconds / 3, rate), (seconds / 3, 0.5 * CAPACITY)]
    times, start = list[float](), 0.0
    for length, speed in spells:
        length = min(length, seconds - start)
        times += [start + at for at in _within(rng.exponential(1 / speed, int(2 * speed * length) + 100), length)]
        start += length
    return times


def play(kind: str, load: float, *, ladder: bool, mix: Sequence[float] = MIX, seed: int = 0) -> Replayed:
    """One run: requests of all lanes, drawn by `mix`, at so many times the capacity of the first variant."""
    rng = np.random.default_rng((seed, KINDS.index(kind), int(load * 100)))
    times = arrivals(kind, load, rng, SECONDS)
    lanes = rng.choice(len(LANES), size=len(times), p=list(mix))
    requests = [Arrival(at=at, lane=LANES[n].name, within_s=LANES[n].deadline_s) for at, n in zip(times, lanes, strict=True)]
    chosen = policy(ladder=ladder)
    speeds = {rung.variant: rung.speed for rung in LADDER}
    rows, seconds = zip(*BATCHES, strict=True)

    def run(batch: Dispatch) -> float:
        return float(np.interp(batch.rows, rows, seconds) / speeds[batch.variant] * rng.lognormal(0, NOISE))

    table = LatencyTable({LADDER[0].variant: BATCHES}, chosen.ladder)
    return replay(Core(chosen, table=table), requests, run)


@dataclass(frozen=True, slots=True)
class Summary:
    """Shares of 1: on-time answers of the capacity, of each lane's requests, background of all answers; accuracy."""

    goodput: float
    attainment: tuple[float, ...]
    background: float
    accuracy: float
    variants: tuple[float, ...]


def summary(played: Replayed) -> Summary:
    ended = list(played.ended.values())
    answered = [one for one in ended if one.outcome == "answered"]
    accuracies = {rung.variant: rung.accuracy for rung in LADDER}
    return Summary(
        goodput=sum(one.on_time for one in ended) / SECONDS / CAPACITY,
        attainment=tuple(_share([e for e in ended if e.arrival.lane == lane.name], _on_time) for lane in LANES),
        background=_share(answered, lambda one: one.arrival.lane == "background"),
        accuracy=float(np.mean([accuracies[one.variant] for one in answered])),
        variants=tuple(_share(answered, lambda one, v=rung.variant: one.variant == v) for rung in LADDER),
    )


def recovery_s(played: Replayed, fell_at: float) -> float | None:
    """Seconds from the fall of the load to the last batch of a cheaper variant that a better one could have served."""
    cheaper = [at for at, _, commands in played.log for c in commands if isinstance(c, Dispatch) and c.variant != "f32"]
    return max(cheaper) - fell_at if cheaper and max(cheaper) > fell_at else None


def _on_time(one: Ended) -> bool:
    return one.on_time


def _share(items: Sequence[Ended], holds: object) -> float:
    return sum(bool(holds(item)) for item in items) / len(items) if items else float("nan")  # type: ignore[operator]


def _within(gaps: np.ndarray, seconds: float) -> list[float]:
    times = np.cumsum(gaps)
    return times[times < seconds].tolist()


def main() -> int:
    for ladder in (False, True):
        for kind in KINDS:
            for load in LOADS:
                played = play(kind, load, ladder=ladder)
                s = summary(played)
                print(ladder, kind, load, f"good {s.goodput:.3f}", "att", *(f"{a:.4f}" for a in s.attainment), f"bg {s.background:.3f} acc {s.accuracy:.4f}", *(f"{v:.2f}" for v in s.variants), recovery_s(played, 2*SECONDS/3), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
