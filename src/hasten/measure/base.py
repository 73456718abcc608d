"""What a meter is, and what it measures on. The extension point `hasten.measure`.

A meter is never shown a candidate alone: it gets a `Pair` of reference and candidate, both loaded in processes of
their own, and the samples to use. Whatever it returns is already a comparison or was taken under the same
circumstances as one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from hasten.data.dataset import Subset
from hasten.engine.base import Tensors
from hasten.measure.contention import Watch
from hasten.registry import Entry, Registry
from hasten.spec.measurement import Figure
from hasten.spec.profile import Observation
from hasten.spec.progress import Listener, ignore
from hasten.spec.signature import Signature
from hasten.spec.slo import Prices
from hasten.spec.target import Precision, Target

__all__ = ["AnswerBook", "Arm", "Meter", "Pair", "Plan", "meters"]


class Arm(Protocol):
    """A loaded variant that can be timed. `hasten.engine.isolate.IsolatedSession` is the real one."""

    load_ms: float

    @property
    def signature(self) -> Signature:
        """Inputs and outputs."""
        ...

    @property
    def precision(self) -> Precision:
        """What it really computes in."""
        ...

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        """Run one batch."""
        ...

    def put(self, slot: int, inputs: Tensors) -> None:
        """Keep a sample under a number."""
        ...

    def time_ms(self, slots: Sequence[int], *, warmup: int = 0) -> list[float]:
        """Run kept samples; milliseconds of each run. Before that `warmup` of them run untimed, or more, where that is
        not 0, until times are steady.
        """
        ...

    def rest(self) -> None:
        """Use no processor until it is asked again."""
        ...

    def peak_memory_mb(self) -> float:
        """Peak resident set in MiB."""
        ...

    def cpu_s(self) -> float:
        """Processor time that it has used so far, in seconds over all its threads."""
        ...

    def profile(self, slots: Sequence[int], *, warmup: int = 1) -> Observation:
        """Run kept samples on a fresh copy under the engine's profiler. Raises `EngineError`, as where it has none."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How much to measure. `rounds` interleaved rounds of `runs` timed runs on each side (`hasten.measure.turns`), on
    up to `samples` samples: as many as show how long and how hard samples are.

    Fixed before the first round: stopping when the numbers look good would make the interval a lie.
    `also_z` asks for the change of accuracy with intervals of other normal quantiles, too, by the names that these
    figures get (`hasten.verify.shares.levels_of`).
    """

    rounds: int = 24
    runs: int = 4
    samples: int = 64
    seed: int = 0
    also_z: Mapping[str, float] = field(default_factory=dict[str, float])


class AnswerBook:
    """The reference's answers by sample, so that each is computed once for all candidates, and what candidates
    gave.
    """

    def __init__(self) -> None:
        self.answers: dict[int, Any] = {}
        self.given: dict[str, dict[int, Any]] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A candidate beside its reference, and the samples to measure on. `fresh` loads the candidate in a new process;
    `target` is where the candidate runs.
    """

    reference: Arm
    candidate: Arm
    fresh: Callable[[], AbstractContextManager[Arm]]
    data: Subset
    book: AnswerBook
    plan: Plan
    watch: Watch = field(default_factory=lambda: Watch(0.0))
    prices: Prices = field(default_factory=Prices)
    listener: Listener = ignore
    label: str = ""
    target: Target = field(default_factory=lambda: Target(engine="onnxruntime"))
    # The candidate is a second process of the reference: its answers are known.
    itself: bool = False


class Meter(Protocol):
    """Measures one aspect. `names` are the figures it gives, with units in the names."""

    name: str
    names: tuple[str, ...]

    def measure(self, pair: Pair) -> dict[str, Figure]:
        """Return figures of the candidate by name. Raises `EngineError` where an engine fails."""
        ...


meters: Registry[Meter] = Registry(
    "measure",
    [
        Entry(name="memory", target="hasten.measure.memory:MemoryMeter"),
        Entry(name="latency", target="hasten.measure.latency:LatencyMeter"),
        Entry(name="energy", target="hasten.measure.energy:EnergyMeter"),
        Entry(name="accuracy", target="hasten.measure.accuracy:AccuracyMeter"),
    ],
)
