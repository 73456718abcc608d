"""The process that holds one loaded model: `python -m hasten.engine.worker`.

Its standard input is the socket of a channel; frames lie in memory that it shares with whoever started it. It times
runs itself, so that no channel and no other process stands between the clock and the engine. It ends with its owner, so
that it never outlives whoever started it.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hasten.engine.area import Area
from hasten.engine.base import Probe, Profiling, Session, engines, why_unprofiled
from hasten.engine.channel import Channel, Closed
from hasten.engine.confine import confine, follow, ran_out_of_memory
from hasten.engine.frames import Frame
from hasten.engine.host import pin_caller, staying_on
from hasten.engine.memory import peak_memory_mb
from hasten.engine.placing import Placing
from hasten.engine.process import HELLO, OUTPUTS, SETTLE_S
from hasten.engine.race import race
from hasten.errors import EngineError, EngineLoadError, EngineRunError, HastenError, MissingError
from hasten.spec.target import Target

__all__ = ["Worker", "main"]


class Worker:
    """Answers one frame at a time. Holds a session for each variant that was loaded (one, "", where nobody names any),
    and samples that were put to be run many times. `room` gives the memory that its next answer will be written to.
    """

    def __init__(self, room: Callable[[int], Any] | None = None) -> None:
        self._room = room
        self._sessions: dict[str, Session] = {}
        self._placing: dict[str, Placing] = {}
        # Whose session the calling thread was pinned for.
        self._pinned = ""
        self._samples: dict[int, dict[str, np.ndarray[Any, Any]]] = {}
        # Engines choose cores for their threads among those that the loading thread may use, so loading wants all.
        self._cores = set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        self._handlers: dict[str, Callable[[Frame], Frame]] = {
            "load": self._load,
            "put": self._put,
            "run": self._run,
            "time": self._time,
            "throughput": self._throughput,
            "probe": self._probe,
            "memory": self._memory,
            "cpu": self._cpu,
            "precision": self._precision,
            "profile": self._profile,
        }

    def answer(self, frame: Frame) -> Frame:
        """Do what the frame asks. Errors of ours travel as an answer; everything else ends the process."""
        handler = self._handlers[frame.op]
        try:
            return handler(frame)
        except MemoryError as error:
            return _failure(EngineRunError(f"There was not enough memory: {error}."), "out_of_memory")
        except EngineError as error:
            return _failure(error, "out_of_memory" if ran_out_of_memory(error) else error.code)
        except HastenError as error:
            return _failure(error, error.code)

    def _load(self, frame: Frame) -> Frame:
        target = msgspec.convert(frame.args["target"], Target)
        engine = engines.get(target.engine)
        name: str = frame.args.get("variant", "")
        started = time.perf_counter()
        with staying_on(self._cores):
            session = self._sessions[name] = engine.load(Path(frame.args["model"]), target)
        elapsed_ms = (time.perf_counter() - started) * 1e3
        self._placing[name] = Placing(session, self._room)
        self._pin(name)
        signature = msgspec.to_builtins(session.signature)
        return Frame(
            "loaded",
            {"signature": signature, "load_ms": elapsed_ms},
        )

    def _precision(self, frame: Frame) -> Frame:
        return Frame("precision", {"precision": self._loaded().precision})

    def _put(self, frame: Frame) -> Frame:
        """Keep a sample under a number. Copied, because the next frame is written over this one."""
        self._samples[frame.args["slot"]] = {name: np.array(a) for name, a in frame.tensors.items()}
        return Frame("kept")

    def _run(self, frame: Frame) -> Frame:
        name: str = frame.args.get("variant", "")
        self._loaded(name)
        return self._placing[name].run(frame.tensors)

    def _time(self, frame: Frame) -> Frame:
        """Run the given slots in order and time each. Before that they run untimed: the first `warmup` of them, if any,
        and then on until threads have settled.
        """
        session, slots, warmup = self._loaded(), frame.args["slots"], frame.args["warmup"]
        settled = time.perf_counter() + (SETTLE_S if warmup else 0.0)
        for number, slot in enumerate(itertools.cycle(slots) if warmup else ()):
            if number >= min(warmup, len(slots)) and time.perf_counter() >= settled:
                break
            session.run(self._samples[slot])
        elapsed: list[int] = []
        for slot in slots:
            inputs = self._samples[slot]
            started = time.perf_counter_ns()
            session.run(inputs)
            elapsed.append(time.perf_counter_ns() - started)
        return Frame("timed", {"elapsed_ns": elapsed})

    def _throughput(self, frame: Frame) -> Frame:
        """Run the given slots over and over from several callers at once; nanoseconds for all runs together."""
        samples = [self._samples[slot] for slot in frame.args["slots"]]
        elapsed = race(self._loaded(), samples, callers=frame.args["callers"], runs=frame.args["runs"])
        return Frame("raced", {"elapsed_ns": elapsed})

    def _probe(self, frame: Frame) -> Frame:
        """Ask an engine what it finds. Whatever its libraries throw is a finding, and a death costs this process."""
        name: str = frame.args["engine"]
        try:
            found = engines.get(name).probe()
        except MissingError as error:
            found = Probe(engine=name, reason=error.message, remedy=error.remedy)
        except Exception as error:
            words = " ".join(str(error).split())[:200]
            found = Probe(engine=name, reason=f"It cannot be loaded here: {type(error).__name__}: {words}")
        return Frame("probed", {"probe": msgspec.to_builtins(found)})

    def _memory(self, frame: Frame) -> Frame:
        return Frame("memory", {"peak_mb": peak_memory_mb()})

    def _profile(self, frame: Frame) -> Frame:
        """Profile the given slots on a second, fresh copy of the model. The session that is loaded stays as it is."""
        target = msgspec.convert(frame.args["target"], Target)
        engine = engines.get(target.engine)
        if not isinstance(engine, Profiling):
            raise EngineLoadError(str(why_unprofiled(engine)), code="no_profiler")
        samples = [self._samples[slot] for slot in frame.args["slots"]]
        with staying_on(self._cores):
            noted = engine.profile(Path(frame.args["model"]), target, samples, warmup=frame.args["warmup"])
        return Frame("profiled", {"observation": msgspec.to_builtins(noted)})

    def _cpu(self, frame: Frame) -> Frame:
        return Frame("cpu", {"seconds": time.process_time()})

    def _loaded(self, name: str = "") -> Session:
        session = self._sessions.get(name)
        if session is None:
            raise EngineRunError("No model is loaded in this worker.")
        if name != self._pinned:
            self._pin(name)
        return session

    def _pin(self, name: str) -> None:
        """Engines may count on the calling thread, and each on another core."""
        pin_caller(self._sessions[name], self._cores)
        self._pinned = name


def _failure(error: HastenError, code: str) -> Frame:
    args = {"kind": type(error).__name__, "message": error.message, "remedy": error.remedy, "code": code}
    return Frame("error", args)


def main() -> None:
    """Serve frames until the other side is gone."""
    channel = _channel()
    worker = Worker(channel.room)
    while True:
        try:
            answer = worker.answer(channel.wait())
            try:
                channel.send(answer.layout())
            except (MemoryError, EngineRunError) as error:
                code = "out_of_memory" if ran_out_of_memory(error) else "engine_run_error"
                channel.send(_failure(EngineRunError(f"The answer cannot be sent: {error}."), code).layout())
        except Closed:
            return


def _channel() -> Channel:
    """Take the channel that was given as standard input, and put the limits in force."""
    end = socket.socket(fileno=os.dup(0))
    # What reads standard input finds its end, and not the channel.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    # Closed in whatever a runtime starts.
    hello, fds, _, _ = socket.recv_fds(end, HELLO.size, 2 + OUTPUTS, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
    if len(fds) != 2 + OUTPUTS:
        raise SystemExit("This process is started by hasten itself, with a channel as its standard input.")
    lifeline, inputs, *outputs = fds
    follow(lifeline)
    confine(*HELLO.unpack(hello))
    return Channel(end, [Area(fd) for fd in outputs], [Area(inputs)])


if __name__ == "__main__":
    main()
