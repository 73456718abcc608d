"""Overload in simulated time: what the scheduler makes of too much load, with made-up but realistic service times.

Run it with `make overload-sim`; it writes the tables of docs/scheduling.md. Nothing here runs a model or a server: the
decisions are those of the real scheduler, the seconds are invented, and so the figures say how decisions turn out and
not how fast anything is. What a server makes of it, `make bench-overload` measures.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hasten.serve.core import Core, Dispatch, Lane, LatencyTable, Policy, Rung
from hasten.testing.replay import Arrival, Replayed, replay
from overloading import simulated

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
    drawn = [LANES[number] for number in rng.choice(len(LANES), size=len(times), p=list(mix))]
    requests = [Arrival(at=at, lane=of.name, within_s=of.deadline_s) for at, of in zip(times, drawn, strict=True)]
    chosen = policy(ladder=ladder)
    speeds = {rung.variant: rung.speed for rung in LADDER}
    rows, seconds = zip(*BATCHES, strict=True)

    def run(batch: Dispatch) -> float:
        return float(np.interp(batch.rows, rows, seconds) / speeds[batch.variant] * rng.lognormal(0, NOISE))

    table = LatencyTable({LADDER[0].variant: BATCHES}, chosen.ladder)
    return replay(Core(chosen, table=table), requests, run)


@dataclass(frozen=True, slots=True)
class Summary:
    """Shares of 1: answers in time of the capacity, of each lane's requests, background of all answers, each variant of
    all answers; accuracy weighted by answers; and in a step run, seconds from the fall of the load to the last answer
    of a cheaper variant.
    """

    goodput: float
    attainment: tuple[float, ...]
    background: float
    variants: tuple[float, ...]
    accuracy: float
    recovery_s: float | None


def summary(kind: str, played: Replayed) -> Summary:
    ended = list(played.ended.values())
    answered = [one for one in ended if one.outcome == "answered"]
    fell = 2 * SECONDS / 3
    cheaper = [one.at for one in answered if one.variant != LADDER[0].variant and one.at > fell]
    variants = tuple(_share([one.variant == rung.variant for one in answered]) for rung in LADDER)
    return Summary(
        goodput=sum(one.on_time for one in ended) / SECONDS / CAPACITY,
        attainment=tuple(_share([e.on_time for e in ended if e.arrival.lane == lane.name]) for lane in LANES),
        background=_share([one.arrival.lane == "background" for one in answered]),
        variants=variants,
        accuracy=sum(share * rung.accuracy for share, rung in zip(variants, LADDER, strict=True)),
        recovery_s=max(cheaper) - fell if kind == "step" and cheaper else None,
    )


def row(kind: str, load: float, found: Summary, *, ladder: bool) -> str:
    cells = [kind, f"{load:g}", f"{found.goodput:.2f}", *(f"{share:.2%}" for share in found.attainment)]
    cells.append(f"{found.background:.1%}")
    if ladder:
        cells += [" / ".join(f"{share:.0%}" for share in found.variants), f"{found.accuracy:.4f}"]
        cells.append("" if found.recovery_s is None else f"{found.recovery_s:.1f} s")
    return f"| {' | '.join(cells)} |"


def tables() -> str:
    """Play everything and return what stands between the marks of the page."""
    rungs = ", ".join(f"{r.variant} ({r.speed:g} times as fast, accuracy {r.accuracy:g})" for r in LADDER)
    lanes = ", ".join(f"{share:.0%} {lane.name}" for lane, share in zip(LANES, MIX, strict=True))
    parts = [
        f"**Simulated, not measured.** {INSTANCES} instances, batches of at most 8 rows; a batch of the first variant "
        f"takes {BATCHES[0][1] * 1e3:g} ms for 1 row and {BATCHES[-1][1] * 1e3:g} ms for 8 (single runs vary by "
        f"{NOISE:.0%}), so that it carries {CAPACITY:.0f} requests/s. Lanes: {lanes}; critical wants answers within "
        "250 ms, standard within 500 ms and at least 0.89 accuracy, background has a minimum share of 5 % and a "
        f"maximum age of 10 s. One run of {SECONDS:g} s each; load and goodput as multiples of that capacity. A "
        "refused request counts as missed. Step: half of the capacity, the load named for a third of the time, and "
        "half again; recovery is from the fall of the load to the last answer of a cheaper variant.",
    ]
    head = "arrivals | load | goodput | critical | standard | background | background of answers"
    for ladder in (False, True):
        title = f"With the ladder {rungs}" if ladder else "With the first variant only"
        columns = head + (" | variants | accuracy | recovery" if ladder else "")
        lines = [f"{title}: answered in time, by lane:", "", f"| {columns} |", "|---" * (columns.count("|") + 1) + "|"]
        for kind in KINDS:
            for load in LOADS:
                found = summary(kind, play(kind, load, ladder=ladder))
                lines.append(row(kind, load, found, ladder=ladder))
                print(lines[-1], flush=True)
        parts.append("\n".join(lines))
    parts.append(simulated.table())
    return "\n\n".join(parts) + "\n"


def main() -> int:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{tables()}{END}{rest.partition(END)[2]}")
    return 0


def _within(gaps: np.ndarray, seconds: float) -> list[float]:
    times = np.cumsum(gaps)
    return times[times < seconds].tolist()


def _share(holds: Sequence[bool]) -> float:
    return sum(holds) / len(holds) if holds else float("nan")


if __name__ == "__main__":
    sys.exit(main())
