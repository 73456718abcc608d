"""The batcher against fixed settings in simulated time: answers per second at five loads. Pure.

The seconds are invented, as in `overload_sim`; one lane without deadlines, so that nothing but batching decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hasten.serve.core import Core, Dispatch, LatencyTable, Policy, Warmed
from hasten.serve.sizes import compared
from hasten.testing.replay import Arrival, replay
from overloading.verdict import ADAPTIVE, BATCHER, Setting

__all__ = ["FIXED", "Server", "kept", "table", "throughputs"]

LOADS = (0.5, 0.8, 1.0, 1.5, 3.0)
FIXED = (Setting(1, 0.0), *(Setting(rows, ms) for rows in (4, 8) for ms in (0.0, 5.0, 20.0, 50.0)))
# Engine seconds of a batch by rows; single runs vary by a log-normal factor. One engine shares most of its work among
# rows; the other is fastest alone, as ppocr-rec is on a core whose cache holds one row.
SHARED = ((1, 0.020), (2, 0.024), (4, 0.032), (8, 0.048))
CACHED = ((1, 0.020), (2, 0.049), (4, 0.103), (8, 0.208))
NOISE = 0.1
# What comes within the lead-in is not counted.
MAX_BATCH, MAX_DELAY_MS = 8, 10.0
LEAD_IN_S, SECONDS = 2.0, 22.0


@dataclass(frozen=True, slots=True)
class Server:
    """So many engine instances, and requests of so many shapes that do not go together. `known` says that the seconds
    are known beforehand; of a server that is `warm` they are not, but engines ran each size three times, and its first
    seconds count, too.
    """

    instances: int
    shapes: int
    batches: tuple[tuple[int, float], ...] = SHARED
    known: bool = True
    warm: bool = False

    @property
    def capacity(self) -> float:
        """Requests per second in the best batches."""
        return self.instances * max(rows / seconds for rows, seconds in self.batches)

    def __str__(self) -> str:
        instances = f"{self.instances} instance{'s' * (self.instances > 1)}"
        words = [instances, f"{self.shapes} shape{'s' * (self.shapes > 1)}"]
        words += ["fastest alone"] * (self.batches == CACHED) + ["times unknown"] * (not self.known)
        words += ["warmed up, from its first second"] * self.warm
        return ", ".join(words)


SERVERS = (
    Server(1, 1),
    Server(2, 1),
    Server(1, 4),
    Server(2, 4),
    Server(1, 1, known=False),
    Server(2, 4, known=False),
    Server(1, 1, CACHED, known=False),
    Server(2, 4, CACHED, known=False),
    Server(1, 1, known=False, warm=True),
    Server(1, 1, CACHED, known=False, warm=True),
    Server(2, 4, CACHED, known=False, warm=True),
)


def throughput(server: Server, setting: Setting, load: float, seed: int = 0) -> float:
    """Answers per second of Poisson arrivals at a multiple of the capacity; equal arrivals for every setting."""
    rng = np.random.default_rng(seed)
    rate = load * server.capacity
    times = np.cumsum(rng.exponential(1 / rate, int(1.5 * rate * SECONDS) + 100))
    shapes = rng.integers(server.shapes, size=len(times))
    arrivals = [Arrival(at=float(at), key=int(shape)) for at, shape in zip(times, shapes, strict=True) if at < SECONDS]
    fixed = setting != ADAPTIVE
    policy = Policy(
        instances=server.instances,
        max_batch=setting.batch if fixed else MAX_BATCH,
        max_delay_s=(setting.delay_ms if fixed else MAX_DELAY_MS) / 1e3,
        company="window" if fixed else "adaptive",
    )
    rows, seconds = zip(*server.batches, strict=True)

    def run(batch: Dispatch) -> float:
        return float(np.interp(batch.rows, rows, seconds) * rng.lognormal(0, NOISE))

    table = LatencyTable({"": server.batches} if server.known else {}, policy.ladder)
    core = Core(policy, table=table)
    for size, shape in itertools.product(compared(policy.max_batch) if server.warm else (), range(server.shapes)):
        core.handle(Warmed("", size, shape, tuple(run(Dispatch((), size)) for _ in range(3))), now=0.0)
    played = replay(core, arrivals, run)
    begin = 0.0 if server.warm else LEAD_IN_S
    counted = [one for one in played.ended.values() if one.outcome == "answered" and begin <= one.at < SECONDS]
    return len(counted) / (SECONDS - begin)


def throughputs(server: Server, load: float) -> dict[Setting, float]:
    """Answers per second by setting."""
    return {setting: throughput(server, setting, load) for setting in (ADAPTIVE, *FIXED)}


def kept(found: dict[Setting, float]) -> tuple[float, Setting]:
    """What the scheduler's own choice keeps of the best fixed setting's throughput, and which that is."""
    best = max(FIXED, key=lambda setting: found[setting])
    return found[ADAPTIVE] / found[best], best


def table(servers: Sequence[Server] = SERVERS) -> str:
    """All of it, in Markdown."""
    worst = 1.0
    lines = [
        "| server | load | adaptive, answers/s | best fixed | answers/s | kept | worst fixed |",
        "|---|---|---|---|---|---|---|",
    ]
    for server in servers:
        for load in LOADS:
            found = throughputs(server, load)
            share, best = kept(found)
            worst = min(worst, share)
            least = min(FIXED, key=lambda setting: found[setting])
            lines.append(
                f"| {server} | {load:g} | {found[ADAPTIVE]:.1f} | {best} | {found[best]:.1f} | {share:.1%} "
                f"| {least}: {found[least]:.1f} |"
            )
            print(lines[-1], flush=True)
    words = (
        f"The batcher, at most {MAX_BATCH} rows and {MAX_DELAY_MS:g} ms, beside {len(FIXED)} fixed settings (batch, "
        f"delay) at five loads of Poisson arrivals, one run of {SECONDS - LEAD_IN_S:g} s each; one lane, no deadlines. "
        f"It keeps at least {worst:.1%} of the best setting's throughput (bar: {BATCHER:.0%}):"
    )
    return "\n".join([words, "", *lines])
