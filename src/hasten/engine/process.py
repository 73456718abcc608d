"""An engine worker as its owner sees it: a process, the channel to it, and what there is to say when it dies.

`IsolatedSession` waits for its answers; the server's event loop is told when they are there. Both stand on this.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, Any

from hasten import errors
from hasten.engine.area import Area
from hasten.engine.channel import Channel, Closed
from hasten.engine.confine import WorkerLimits, environment
from hasten.engine.frames import Frame, Layout, Parts
from hasten.engine.precedence import step_back

__all__ = ["COMMAND", "HELLO", "OUTPUTS", "SETTLE_S", "WorkerProcess"]

COMMAND = ("-m", "hasten.engine.worker")
# What a worker is told first, with the descriptors of the lifeline and of all areas: how many bytes it may allocate.
HELLO = struct.Struct("<Q")
# Areas for answers: one, and further ones where answers stay until they are sent.
OUTPUTS = 4
# A worker that was stopped runs untimed for so long before it is timed. Its threads wake up together, and it is some
# milliseconds until the kernel has spread them over the cores again (docs/decisions/0035).
SETTLE_S = 0.010
# A process whose channel is closed has all but ended; whoever serves others meanwhile cannot wait for long.
_ENDING_S = 1.0


class WorkerProcess:
    """A running worker. It may be killed from any thread; everything else is for one caller at a time."""

    def __init__(self, engine: str, limits: WorkerLimits | None = None, command: Sequence[str] = COMMAND) -> None:
        self.engine = engine
        self.limits = limits or WorkerLimits()
        self._closed = False
        self._resting = False
        with contextlib.ExitStack() as held:
            self._log: IO[bytes] = held.enter_context(tempfile.TemporaryFile())
            inputs = held.enter_context(Area.create())
            outputs = [held.enter_context(Area.create()) for _ in range(OUTPUTS)]
            ours, theirs = socket.socketpair()
            self._channel = held.enter_context(contextlib.closing(Channel(ours, [inputs], outputs)))
            with theirs:
                lifeline, alive = os.pipe()
                held.callback(os.close, alive)
                with os.fdopen(lifeline):
                    # It fits into the socket, so that nobody needs to read it yet.
                    hello = HELLO.pack(self.limits.memory_mb * 2**20)
                    socket.send_fds(ours, [hello], [lifeline, inputs.fd, *(area.fd for area in outputs)])
                self._process = subprocess.Popen(
                    [sys.executable, *command],
                    stdin=theirs.fileno(),
                    stdout=self._log,
                    stderr=self._log,
                    env=environment(os.environ),
                    # Its own session, so that Ctrl-C reaches only us and we close workers in order.
                    start_new_session=True,
                )
                step_back(self._process.pid, self.limits.nice or 0)
            self._held = held.pop_all()

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def fileno(self) -> int:
        """The descriptor that becomes readable when there is an answer, or the worker is gone."""
        return self._channel.fileno()

    def send(self, op: str, args: Mapping[str, Any] | None = None, parts: Parts | None = None) -> None:
        """Ask for something. Raises `EngineCrashed` if the worker is gone, `EngineRunError` for what cannot cross."""
        if self._resting:
            self._resting = False
            self._signal(signal.SIGCONT)
        try:
            self._channel.send(Layout(op, args or {}, parts or {}))
        except Closed as error:
            raise self.crash(op) from error
        except MemoryError as error:
            raise errors.EngineRunError(f"The batch does not fit: {error}.", code="out_of_memory") from error

    def receive(self, op: str) -> Frame | None:
        """Return the answer to `op`, or None where it is not there yet. Its tensors are views that the next answer
        overwrites, unless it `lasts`. Raises the error that the worker met, or `EngineCrashed`.
        """
        try:
            answer = self._channel.receive()
        except Closed as error:
            raise self.crash(op) from error
        return answer if answer is None else _checked(answer)

    def wait(self, op: str, timeout_s: float) -> Frame:
        """Wait for the answer to `op`; a worker that is silent for `timeout_s` is ended. Raises as `receive` does."""
        try:
            return _checked(self._channel.wait(timeout_s))
        except Closed as error:
            raise self.crash(op) from error
        except TimeoutError as error:
            self.kill()
            raise self.hang(op) from error

    def rest(self) -> None:
        """Stop the worker, all its threads, until it is asked again. For when nobody waits for an answer.

        On Linux only, where a worker that is stopped ends with its owner, too (`hasten.engine.confine.follow`).
        """
        if sys.platform == "linux" and not self._resting:
            self._resting = True
            self._signal(signal.SIGSTOP)

    def hang(self, op: str) -> errors.EngineCrashed:
        """What to say of a worker that did not answer in time."""
        return errors.EngineCrashed(
            f"The engine {self.engine} did not answer {op!r} in time; its process was ended.",
            remedy="Give it more time, or leave this candidate out.",
            code="engine_hang",
        )

    def crash(self, op: str) -> errors.EngineCrashed:
        """Describe how the worker died: the signal or status, and the last thing it wrote."""
        try:
            status = self._process.wait(timeout=_ENDING_S)
        except subprocess.TimeoutExpired:
            # Its end of the channel is closed, so nobody can use it any more.
            self.kill()
            status = self._process.wait()
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        last = "" if self._closed else self._last_words()
        return errors.EngineCrashed(f"The process of engine {self.engine} died on {op!r} ({how}).{last}")

    def kill(self) -> None:
        """End the worker and whatever it started, from any thread, whatever it is doing. Safe to call twice."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            # It leads its own process group. It may be gone already: whoever asks it then is told.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def close(self) -> None:
        """End the worker, wait for its end, and give back descriptors and memory. Safe to call twice."""
        self.kill()
        self._process.wait()
        if not self._closed:
            self._closed = True
            self._held.close()

    def _last_words(self) -> str:
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 4000))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f" It last said: {lines[-1][:300]}" if lines else ""


def _checked(answer: Frame) -> Frame:
    """Turn an error frame back into the error that it was."""
    if answer.op != "error":
        return answer
    kind = getattr(errors, answer.args["kind"], errors.EngineError)
    raise kind(answer.args["message"], remedy=answer.args["remedy"], code=answer.args["code"])
