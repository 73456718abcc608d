"""A profile as values: what an engine noted of its operators, and what hasten makes of it.

`OperatorTime` and `Observation` are what an engine says. `Profile` is the result: operators with their times, what the
machine can do at most (`Ceilings`), what bounds each operator, and the bottlenecks with what could be done about them.
"""

from __future__ import annotations

from typing import Literal

from hasten.spec.environment import Environment
from hasten.spec.measurement import Figure
from hasten.spec.target import Format, Precision, Target
from hasten.spec.values import Value

__all__ = [
    "Bandwidth",
    "Bottleneck",
    "Bound",
    "Ceilings",
    "Observation",
    "Operator",
    "OperatorTime",
    "Profile",
    "Remedy",
    "Shapes",
    "Timeline",
]

# What keeps an operator from being faster: arithmetic, memory traffic, or neither of the two.
Bound = Literal["compute", "memory", "overhead"]
Shapes = dict[str, tuple[int, ...]]


class OperatorTime(Value, frozen=True):
    """One operator of the graph that an engine really executes, in the engine's own words.

    `kind` is the engine's operator type. `nodes` are names of the model's nodes that the engine says it stands for;
    `tensors` are those that it makes. `us` are microseconds, one for each run, or one mean over all runs where the
    engine keeps no more (`Observation.averaged`). `starts_us` is when each run of it began, by the engine's own clock;
    empty where the engine does not say. `flops` and `bytes_moved` (read and written, weights included) are what the
    engine tells of the executed operator; None where it does not. `matrix` says whether it does matrix work.
    """

    name: str
    kind: str
    nodes: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    us: tuple[float, ...] = ()
    starts_us: tuple[float, ...] = ()
    flops: int | None = None
    bytes_moved: int | None = None
    matrix: bool = False


class Observation(Value, frozen=True):
    """Some runs of a freshly loaded model with the engine's profiler on.

    `operators` are in the order of execution; `wall_us` is the wall time of each run, seen from outside.
    """

    operators: tuple[OperatorTime, ...]
    wall_us: tuple[float, ...]
    averaged: bool = False


class Bandwidth(Value, frozen=True):
    """Bytes read and written in a second while a working set of `working_set_bytes` is streamed over and over."""

    working_set_bytes: int
    gb_per_s: Figure


class Ceilings(Value, frozen=True):
    """What this machine reaches on `threads` threads: the two lines of a roofline, the second by size of the data.

    `memory` has small working sets first; its last one lies beyond the caches.
    """

    threads: int
    compute_gflop_per_s: Figure
    memory: tuple[Bandwidth, ...]


class Operator(Value, frozen=True):
    """One executed operator, placed under the roofline.

    `nodes` are the model's nodes that it computes, as far as that is known. `share` is its part of the sum of all
    operators. `roofline_share` is the least time that the ceilings allow over the time that it took. `reason` says why
    `bound` is None.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    time_us: Figure
    share: float
    flops: int | None
    bytes_moved: int | None
    roofline_share: Figure
    bound: Bound | None
    reason: str | None = None

    @property
    def label(self) -> str:
        """What to call it: the model's node where it is one, and how many more it stands for."""
        first = next(iter(self.nodes), self.name)
        return f"{first} + {len(self.nodes) - 1} more" if len(self.nodes) > 1 else first


class Remedy(Value, frozen=True):
    """A technique of hasten that addresses a bottleneck. `operators` counts those of the bottleneck it would change;
    `after` is a technique that has to come first.
    """

    transform: str
    why: str
    operators: int
    after: str | None = None


class Bottleneck(Value, frozen=True):
    """Operators of one kind with one bound: they take `share` of the time and call for the same remedy.

    `largest` are the labels of the slowest few. Without remedies, `why_none` says so in words.
    """

    kind: str
    bound: Bound | None
    count: int
    time_us: Figure
    share: float
    largest: tuple[str, ...]
    remedies: tuple[Remedy, ...] = ()
    why_none: str | None = None


class Timeline(Value, frozen=True):
    """One run for a trace: (index of the operator, start, duration) in microseconds. `measured` says that starts are
    the engine's own; otherwise operators are laid end to end.
    """

    slices: tuple[tuple[int, float, float], ...]
    measured: bool


class Profile(Value, frozen=True):
    """Where the time of a prediction goes.

    `latency_ms` is a prediction without the profiler, `profiled_ms` one with it, `operators_ms` the sum of all
    operators; `slowdown` is profiled over unprofiled, paired in the same rounds.
    """

    model: str
    sha256: str
    format: Format
    target: Target
    precision: Precision
    shapes: Shapes
    samples: int
    rounds: int
    latency_ms: Figure
    profiled_ms: Figure
    slowdown: Figure
    operators_ms: Figure
    ceilings: Ceilings
    operators: tuple[Operator, ...]
    bottlenecks: tuple[Bottleneck, ...]
    notes: tuple[str, ...]
    timelines: tuple[Timeline, ...]
    environment: Environment
