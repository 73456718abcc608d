"""A session in a process of its own: a crash, a hang or a leak of an engine costs that session and nothing else.

`IsolatedSession` is a `Session` that also keeps samples in the worker and times runs there. `load_isolated`
starts the worker and loads; use the result in a `with`. `probe_isolated` asks an engine about this machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np

from hasten.engine.base import Probe, Tensors
from hasten.engine.confine import WorkerLimits
from hasten.engine.frames import Frame
from hasten.engine.process import COMMAND, WorkerProcess
from hasten.errors import EngineCrashed
from hasten.spec.profile import Observation
from hasten.spec.signature import Signature
from hasten.spec.target import Precision, Target

__all__ = ["COMMAND", "IsolatedSession", "load_isolated", "probe_isolated"]

LOAD_TIMEOUT_S = 300.0
RUN_TIMEOUT_S = 120.0
PROBE_TIMEOUT_S = 60.0


def load_isolated(
    model: Path,
    target: Target,
    *,
    timeout_s: float = LOAD_TIMEOUT_S,
    command: Sequence[str] = COMMAND,
    memory_mb: int = 0,
) -> IsolatedSession:
    """Start a worker and load `model` for `target` in it.

    `command` is what Python runs: a script that brings engines of its own ends in `hasten.engine.worker.main()`.
    `memory_mb` is the most that the worker may allocate in MiB, 0 for no bound (`hasten.engine.confine.WorkerLimits`).
    Raises `EngineLoadError` where the engine refuses, `EngineCrashed` where its process dies or is silent for
    `timeout_s`.
    """
    session = IsolatedSession(target, command, memory_mb=memory_mb)
    try:
        session.load(model, timeout_s)
    except BaseException:
        session.close()
        raise
    return session


def probe_isolated(engine: str, *, timeout_s: float = PROBE_TIMEOUT_S) -> Probe:
    """Ask an engine what it finds here, in a process of its own: a driver that crashes or hangs is a reason.

    Never raises for what the engine does.
    """
    session = IsolatedSession(Target(engine=engine))
    try:
        return session.probe(timeout_s=timeout_s)
    except EngineCrashed as error:
        return Probe(engine=engine, reason=error.message, remedy="Mend or remove its installation.")
    finally:
        session.close()


class IsolatedSession:
    """A session whose engine lives in a worker process. One caller at a time."""

    def __init__(self, target: Target, command: Sequence[str] = COMMAND, *, memory_mb: int = 0) -> None:
        self.target = target
        self.load_ms = float("nan")
        self._model = Path()
        self._signature = Signature(inputs=(), outputs=())
        self._precision: Precision | None = None
        self._process = WorkerProcess(target.engine, WorkerLimits(memory_mb=memory_mb), command)

    def load(self, model: Path, timeout_s: float) -> None:
        """Load a model into the worker."""
        answer = self._ask("load", timeout_s, self._what(model.resolve())).args
        self._model = model.resolve()
        self._signature = msgspec.convert(answer["signature"], Signature)
        self.load_ms = float(answer["load_ms"])

    @property
    def signature(self) -> Signature:
        """Inputs and outputs as the engine sees them."""
        return self._signature

    @property
    def precision(self) -> Precision:
        """The precision that the runtime really uses, asked of it once."""
        if self._precision is None:
            self._precision = self._ask("precision", LOAD_TIMEOUT_S).args["precision"]
        assert self._precision is not None
        return self._precision

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def run(self, inputs: Tensors, *, timeout_s: float = RUN_TIMEOUT_S) -> dict[str, np.ndarray[Any, Any]]:
        """Run one batch; the outputs are arrays of their own. Raises `EngineRunError` or `EngineCrashed`."""
        answer = self._ask("run", timeout_s, inputs=inputs)
        return {name: array.copy() for name, array in answer.tensors.items()}

    def put(self, slot: int, inputs: Tensors) -> None:
        """Keep a sample in the worker under a number, to be timed without any transfer."""
        self._ask("put", RUN_TIMEOUT_S, {"slot": slot}, inputs)

    def time_ms(self, slots: Sequence[int], *, warmup: int = 0, timeout_s: float = RUN_TIMEOUT_S) -> list[float]:
        """Run kept samples in order and return each run's milliseconds, timed inside the worker."""
        answer = self._ask("time", timeout_s, {"slots": list(slots), "warmup": warmup})
        return [elapsed / 1e6 for elapsed in answer.args["elapsed_ns"]]

    def rest(self) -> None:
        """Let the worker use no processor until it is asked again: threads of engines spin on after a run, for tens of
        milliseconds, and whoever is timed next would be short of a core.
        """
        self._process.rest()

    def throughput_rps(self, slots: Sequence[int], *, callers: int, runs: int) -> float:
        """Run kept samples `runs` times in all, from `callers` threads of the worker at once; runs in a second.

        More callers than `Runtime.instances` wait for each other, as they would in a server.
        """
        args = {"slots": list(slots), "callers": callers, "runs": runs}
        return runs / (self._ask("throughput", LOAD_TIMEOUT_S, args).args["elapsed_ns"] / 1e9)

    def profile(self, slots: Sequence[int], *, warmup: int = 1) -> Observation:
        """Run kept samples on a fresh copy of the loaded model with the engine's profiler on; times of its operators.

        The plain session stays loaded, so that both can take turns. Raises `EngineLoadError` with the code
        "no_profiler" where the engine has none.
        """
        args = {**self._what(self._model), "slots": list(slots), "warmup": warmup}
        return msgspec.convert(self._ask("profile", LOAD_TIMEOUT_S, args).args["observation"], Observation)

    def probe(self, *, timeout_s: float) -> Probe:
        """Ask the target's engine what it finds on this machine."""
        answer = self._ask("probe", timeout_s, {"engine": self.target.engine})
        return msgspec.convert(answer.args["probe"], Probe)

    def peak_memory_mb(self) -> float:
        """Peak resident set of the worker process in MiB: interpreter, runtime, model and activations together."""
        return float(self._ask("memory", RUN_TIMEOUT_S).args["peak_mb"])

    def cpu_s(self) -> float:
        """Processor time of the worker so far in seconds, over all its threads; those that wait busily included."""
        return float(self._ask("cpu", RUN_TIMEOUT_S).args["seconds"])

    def close(self) -> None:
        """End the worker. Safe to call twice."""
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _what(self, model: Path) -> dict[str, Any]:
        return {"model": str(model), "target": msgspec.to_builtins(self.target)}

    def _ask(
        self, op: str, timeout_s: float, args: Mapping[str, Any] | None = None, inputs: Tensors | None = None
    ) -> Frame:
        self._process.send(op, args, {name: (array,) for name, array in (inputs or {}).items()})
        return self._process.wait(op, timeout_s)
