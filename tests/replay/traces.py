"""Recorded runs of the scheduler: a policy, events with their times, and the commands that were given.

One file a run, JSON lines: the first has the policy and the latency table, each further one an event and its commands.
`python tests/replay/traces.py` records them anew; do that only where a change of decisions is meant, and look at the
difference before it is committed.
"""

from __future__ import annotations

import random
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import msgspec

from hasten.serve import core as words
from hasten.serve.core import Command, Core, Dispatch, EngineDown, EngineUp, Event, Lane, LatencyTable, Policy, Rung
from hasten.testing.replay import Arrival, replay

FOLDER = Path(__file__).parent


class Run(msgspec.Struct, frozen=True):
    """What a core starts from: measured points (rows, seconds) by variant seed the table."""

    policy: Policy
    measured: dict[str, list[tuple[int, float]]] = {}

    def core(self) -> Core:
        return Core(self.policy, table=LatencyTable(self.measured, self.policy.ladder))


def read(path: Path) -> tuple[Run, list[tuple[float, Event, list[Any]]]]:
    """Return a recorded run: its start, and (time, event, commands as plain data) in order."""
    head, *lines = path.read_bytes().splitlines()
    steps = [msgspec.json.decode(line) for line in lines]
    return msgspec.json.decode(head, type=Run), [(at, event_of(event), commands) for at, event, commands in steps]


def plain(word: Event | Command) -> dict[str, Any]:
    """An event or command as JSON data; a shape key that is a tuple would come back as a list, so keys are words.

    What two equal words may differ in is for observers, and no part of the decision.
    """
    data = msgspec.json.decode(msgspec.json.encode(word))
    told = {field.name for field in fields(word) if not field.compare} if is_dataclass(word) else set[str]()
    return {"kind": type(word).__name__} | {name: value for name, value in data.items() if name not in told}


def event_of(data: dict[str, Any]) -> Event:
    kind = getattr(words, data["kind"])
    return msgspec.convert({name: value for name, value in data.items() if name != "kind"}, kind)


def record(name: str, run: Run, seed: int, count: int, rate: float, *, lanes: tuple[str, ...] = ("",)) -> None:
    rng, at, arrivals = random.Random(seed), 0.0, list[Arrival]()
    for _ in range(count):
        at += rng.expovariate(rate * (0.2 if rng.random() < 0.02 else 1.0))
        arrivals.append(
            Arrival(
                at=at,
                rows=rng.choice([1, 1, 1, 2]),
                key=rng.choice(["a", "a", "b"]),
                within_s=rng.choice([None, 0.05, 0.3]) if len(lanes) > 1 else None,
                leaves_s=0.01 if rng.random() < 0.05 else None,
                lane=rng.choice(lanes),
            )
        )

    def seconds(batch: Dispatch) -> float:
        speed = next(rung.speed for rung in run.policy.ladder if rung.variant == batch.variant)
        return (0.008 + 0.002 * batch.rows) * rng.uniform(0.9, 1.2) / speed

    faults = [(at / 2, EngineDown(0)), (at / 2 + 0.2, EngineUp(0))]
    played = replay(run.core(), arrivals, seconds, events=faults)
    lines = [msgspec.json.encode(run)]
    lines += [msgspec.json.encode([now, plain(e), [plain(c) for c in commands]]) for now, e, commands in played.log]
    (FOLDER / f"{name}.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def runs() -> list[Path]:
    """The recorded runs."""
    return sorted(FOLDER.glob("*.jsonl"))


LANES = (
    Lane(name="critical", priority=1, deadline_s=0.1),
    Lane(name="background", priority=2, min_share=0.1, max_age_s=2.0, background=True),
)
LADDER = (Rung(variant="f32", accuracy=0.90), Rung(variant="int8", speed=2.0, accuracy=0.89))
MEASURED = [(1, 0.010), (8, 0.024)]

if __name__ == "__main__":
    record("fifo", Run(Policy(instances=2, max_batch=4, queue_capacity=12)), 1, 120, 500.0)
    record("window", Run(Policy(max_batch=4, max_delay_s=0.005, queue_capacity=12)), 2, 120, 150.0)
    record(
        "lanes", Run(Policy(max_batch=8, lanes=LANES, queue_capacity=40), {"": MEASURED}), 3, 150, 600.0,
        lanes=("critical", "background"),
    )  # fmt: skip
    ladder = Policy(
        instances=1, max_instances=3, max_batch=8, max_delay_s=0.01, company="adaptive", lanes=LANES, ladder=LADDER,
        idle_s=5.0,
    )  # fmt: skip
    record("ladder", Run(ladder, {"f32": MEASURED}), 4, 250, 900.0, lanes=("critical", "background"))
