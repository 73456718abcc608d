"""A session in a process of its own: a crash, a hang or a leak of an engine costs that session and nothing else.

`IsolatedSession` is a `Session` that also keeps samples in the worker and times runs there. `load_isolated`
starts the worker and loads; use the result in a `with`. `probe_isolated` asks an engine about this machine.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import msgspec
import numpy as np

from hasten import errors
from hasten.engine.base import Probe, Tensors
from hasten.engine.frames import Frame, read_frame, write_frame
from hasten.spec.profile import Observation
from hasten.spec.signature import Signature
from hasten.spec.target import Precision, Target

__all__ = ["IsolatedSession", "load_isolated", "probe_isolated"]

LOAD_TIMEOUT_S = 300.0
RUN_TIMEOUT_S = 120.0
PROBE_TIMEOUT_S = 60.0
COMMAND = ("-m", "hasten.engine.worker")


def load_isolated(
    model: Path, target: Target, *, timeout_s: float = LOAD_TIMEOUT_S, command: Sequence[str] = COMMAND
) -> IsolatedSession:
    """Start a worker and load `model` for `target` in it.

    `command` is what Python runs: a script that brings engines of its own ends in `hasten.engine.worker.main()`.
    Raises `EngineLoadError` where the engine refuses, `EngineCrashed` where its process dies or is silent for
    `timeout_s`.
    """
    session = IsolatedSession(target, command)
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
    except errors.EngineCrashed as error:
        return Probe(engine=engine, reason=error.message, remedy="Mend or remove its installation.")
    finally:
        session.close()


class IsolatedSession:
    """A session whose engine lives in a worker process. One caller at a time."""

    def __init__(self, target: Target, command: Sequence[str] = COMMAND) -> None:
        self.target = target
        self.load_ms = float("nan")
        self._model = Path()
        self._signature = Signature(inputs=(), outputs=())
        self._precision: Precision | None = None
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the worker; close() closes it)
        self._process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Its own session, so that Ctrl-C reaches only us and we close workers in order.
            start_new_session=True,
        )

    def load(self, model: Path, timeout_s: float) -> None:
        """Load a model into the worker."""
        answer = self._ask(Frame("load", self._what(model.resolve())), timeout_s).args
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
            self._precision = self._ask(Frame("precision"), LOAD_TIMEOUT_S).args["precision"]
        assert self._precision is not None
        return self._precision

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def run(self, inputs: Tensors, *, timeout_s: float = RUN_TIMEOUT_S) -> dict[str, np.ndarray[Any, Any]]:
        """Run one batch; the outputs are read-only views. Raises `EngineRunError` or `EngineCrashed`."""
        return dict(self._ask(Frame("run", tensors=inputs), timeout_s).tensors)

    def put(self, slot: int, inputs: Tensors) -> None:
        """Keep a sample in the worker under a number, to be timed without any transfer."""
        self._ask(Frame("put", {"slot": slot}, inputs), RUN_TIMEOUT_S)

    def time_ms(self, slots: Sequence[int], *, warmup: int = 0, timeout_s: float = RUN_TIMEOUT_S) -> list[float]:
        """Run kept samples in order and return each run's milliseconds, timed inside the worker."""
        answer = self._ask(Frame("time", {"slots": list(slots), "warmup": warmup}), timeout_s)
        return [elapsed / 1e6 for elapsed in answer.args["elapsed_ns"]]

    def throughput_rps(self, slots: Sequence[int], *, callers: int, runs: int) -> float:
        """Run kept samples `runs` times in all, from `callers` threads of the worker at once; runs in a second.

        More callers than `Runtime.instances` wait for each other, as they would in a server.
        """
        args = {"slots": list(slots), "callers": callers, "runs": runs}
        return runs / (self._ask(Frame("throughput", args), LOAD_TIMEOUT_S).args["elapsed_ns"] / 1e9)

    def profile(self, slots: Sequence[int], *, warmup: int = 1) -> Observation:
        """Run kept samples on a fresh copy of the loaded model with the engine's profiler on; times of its operators.

        The plain session stays loaded, so that both can take turns. Raises `EngineLoadError` with the code
        "no_profiler" where the engine has none.
        """
        args = {**self._what(self._model), "slots": list(slots), "warmup": warmup}
        return msgspec.convert(self._ask(Frame("profile", args), LOAD_TIMEOUT_S).args["observation"], Observation)

    def probe(self, *, timeout_s: float) -> Probe:
        """Ask the target's engine what it finds on this machine."""
        answer = self._ask(Frame("probe", {"engine": self.target.engine}), timeout_s)
        return msgspec.convert(answer.args["probe"], Probe)

    def peak_memory_mb(self) -> float:
        """Peak resident set of the worker process in MiB: interpreter, runtime, model and activations together."""
        return float(self._ask(Frame("memory"), RUN_TIMEOUT_S).args["peak_mb"])

    def cpu_s(self) -> float:
        """Processor time of the worker so far in seconds, over all its threads; those that wait busily included."""
        return float(self._ask(Frame("cpu"), RUN_TIMEOUT_S).args["seconds"])

    def close(self) -> None:
        """End the worker. Safe to call twice."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                # What was still buffered for a worker that is gone: nobody waits for it.
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._process.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _what(self, model: Path) -> dict[str, Any]:
        return {"model": str(model), "target": msgspec.to_builtins(self.target)}

    def _ask(self, frame: Frame, timeout_s: float) -> Frame:
        assert self._process.stdin is not None
        try:
            write_frame(self._process.stdin, frame)  # pyright: ignore[reportArgumentType]
        except (BrokenPipeError, ValueError) as error:
            raise self._crash(frame.op) from error
        deadline = time.monotonic() + timeout_s
        answer = read_frame(lambda size: self._read_exactly(size, deadline, frame.op))
        if answer.op == "error":
            raise _rebuilt(answer.args)
        return answer

    def _read_exactly(self, size: int, deadline: float, op: str) -> bytearray:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        buffer = bytearray(size)
        view, got = memoryview(buffer), 0
        while got < size:
            ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self._process.kill()
                raise errors.EngineCrashed(
                    f"The engine {self.target.engine} did not answer {op!r} in time; its process was ended.",
                    remedy="Give it more time, or leave this candidate out.",
                    code="engine_hang",
                )
            count = os.readv(fd, [view[got:]])
            if count == 0:
                raise self._crash(op)
            got += count
        return buffer

    def _crash(self, op: str) -> errors.EngineCrashed:
        """Describe how the worker died: the signal or status, and the last thing it wrote."""
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        self._log.seek(0)
        lines = self._log.read()[-4000:].decode(errors="replace").strip().splitlines()
        last = f" It last said: {lines[-1][:300]}" if lines else ""
        return errors.EngineCrashed(f"The process of engine {self.target.engine} died on {op!r} ({how}).{last}")


def _rebuilt(args: dict[str, Any]) -> errors.HastenError:
    """Turn an error frame back into the error that it was."""
    kind = getattr(errors, args["kind"], errors.EngineError)
    return kind(args["message"], remedy=args["remedy"], code=args["code"])
