"""Arms without processes: latency and answers made up, so that searching and measuring are tested in milliseconds.

`FakeLoader` stands in for `hasten.optimize.trial.load_arm`: it gives an arm for each target from a table.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hasten.engine.base import Tensors
from hasten.errors import EngineError, EngineLoadError
from hasten.measure.base import Arm
from hasten.spec.profile import Observation, OperatorTime
from hasten.spec.signature import Signature
from hasten.spec.target import Precision, Target

__all__ = ["FakeArm", "FakeLoader"]

Answer = Callable[[Tensors], dict[str, np.ndarray[Any, Any]]]


class FakeArm:
    """An arm whose runs take about `ms` milliseconds, with 3 % lognormal noise, on `cores` cores, and answer with
    `answer`. `kinds` are microseconds by operator type; without them it has no profiler.
    """

    def __init__(
        self,
        signature: Signature,
        answer: Answer,
        *,
        ms: float,
        memory_mb: float = 100.0,
        cores: float = 1.0,
        kinds: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        self.load_ms = 1.0
        self.runs: list[Tensors] = []
        self._signature = signature
        self._answer = answer
        self._ms = ms
        self._memory_mb = memory_mb
        self._cores = cores
        self._kinds = kinds
        self._busy_s = 0.0
        self._rng = np.random.default_rng(seed)

    @property
    def signature(self) -> Signature:
        """Inputs and outputs."""
        return self._signature

    @property
    def precision(self) -> Precision:
        """Always f32."""
        return "f32"

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        """Answer, and remember what was asked."""
        self.runs.append(inputs)
        return self._answer(inputs)

    def put(self, slot: int, inputs: Tensors) -> None:
        """Remember what was put."""
        self.runs.append(inputs)

    def time_ms(self, slots: Sequence[int], *, warmup: int = 0) -> list[float]:
        """Make up one time for each slot."""
        times = [float(self._ms * np.exp(self._rng.normal(0, 0.03))) for _ in slots]
        self._busy_s += sum(times) / 1e3 * self._cores
        return times

    def rest(self) -> None:
        """Nothing that it could stop."""

    def peak_memory_mb(self) -> float:
        """What it was told."""
        return self._memory_mb

    def cpu_s(self) -> float:
        """The time that it made up, on all its cores."""
        return self._busy_s

    def profile(self, slots: Sequence[int], *, warmup: int = 1) -> Observation:
        """Return one operator of each type that it was told of, the same in each run."""
        if self._kinds is None:
            raise EngineLoadError("The fake engine has no profiler.", code="no_profiler")
        operators = [OperatorTime(name=kind, kind=kind, us=(us,) * len(slots)) for kind, us in self._kinds.items()]
        return Observation(operators=tuple(operators), wall_us=(self._ms * 1e3,) * len(slots))


class FakeLoader:
    """Loads arms by (engine, precision, threads); an `EngineError` in the table is raised instead."""

    def __init__(self, table: Mapping[tuple[str, str, int], Callable[[], FakeArm] | EngineError]) -> None:
        self._table = table
        self.loaded: list[Target] = []

    def __call__(self, model: Path, target: Target) -> AbstractContextManager[Arm]:
        """Return the arm for `target`."""
        self.loaded.append(target)
        found = self._table[target.engine, target.precision, target.threads]
        if isinstance(found, EngineError):
            raise found
        return _open(found())


@contextmanager
def _open(arm: FakeArm) -> Generator[Arm]:
    yield arm
