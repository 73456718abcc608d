"""Put a load on a target: closed loops and open ones, and a log of every call.

In an open loop a request's latency counts from the moment it was due, not from when a caller got round to sending it:
otherwise a slow server would slow its own load down and hide its queue (coordinated omission, Tene 2013). So whoever
hands out requests never waits for an answer; callers are added while all are busy, up to a most, and from there on
requests wait for a caller with their clock running. What was sent late, and what nobody answered or even sent before
patience ran out, is in the log and is counted.

The warm-up is load of the same kind that comes before time 0 and is not measured. `hasten.measure.outcome` makes
figures of the log.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from hasten.errors import HastenError
from hasten.heap import settled
from hasten.measure.arrivals import arrivals, lead_in
from hasten.measure.load import Load, length_s
from hasten.measure.outcome import Call, LoadResult, summarize

__all__ = ["CALLERS", "Callee", "Pace", "closed_loop", "open_loop", "run_load"]

# The most callers of an open loop: as many threads as one process drives without becoming the bottleneck itself.
CALLERS = 256
_PATIENCE_S = 30.0
# A caller whose request failed takes a breath, or a dead server would be asked thousands of times a second.
_BREATH_S = 0.01


class Callee(Protocol):
    """Something that predicts. `call(i)` answers sample i (modulo its samples) and returns when it is done.

    Thread-safe. Raises `HastenError` for a request that failed.
    """

    def call(self, index: int) -> None:
        """Make one prediction."""
        ...

    def rest(self) -> None:
        """Use no processor until the next call, where that can be had."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Where time comes from, and how it is waited for. Tests put a clock of their own in its place."""

    now: Callable[[], float] = time.perf_counter
    pause: Callable[[float], None] = time.sleep

    def until(self, moment: float) -> None:
        """Wait for `moment`, unless it has passed."""
        left = moment - self.now()
        if left > 0:
            self.pause(left)


def run_load(
    callee: Callee,
    load: Load,
    duration_s: float | None = None,
    *,
    seed: int = 0,
    warmup_s: float = 0.0,
    deadline_ms: float | None = None,
    patience_s: float = _PATIENCE_S,
    callers: int = CALLERS,
    pace: Pace | None = None,
) -> LoadResult:
    """Put the load on one target for `duration_s` seconds (None: the load's own length), after one untimed call and a
    warm-up.

    `patience_s` is waited for answers after the last request was due. Raises the target's own error where nothing at
    all was answered, `UsageError` for a trace that cannot be read or holds nothing.
    """
    pace = pace or Pace()
    length = length_s(load, duration_s)
    callee.call(0)
    # Pauses of the collector would be taken for latency of whoever is called.
    with settled():
        if load.kind == "closed":
            calls = closed_loop(callee, int(load.value), length, warmup_s=warmup_s, patience_s=patience_s, pace=pace)
            return summarize(load, calls, length, deadline_ms)
        due = arrivals(load, length, seed)
        ahead = lead_in(load)
        if warmup_s and ahead is not None:
            # Other arrivals than the measured ones, which must not depend on the length of the warm-up.
            due = [at - warmup_s for at in arrivals(ahead, warmup_s, seed + 1)] + due
        elif warmup_s:
            closed_loop(callee, 1, warmup_s, patience_s=patience_s, pace=pace)
        start = pace.now() + (warmup_s if ahead is not None else 0.0)
        calls = open_loop(callee, due, start=start, callers=callers, patience_s=patience_s, pace=pace)
        return summarize(load, calls, length, deadline_ms)


def closed_loop(
    callee: Callee,
    callers: int,
    duration_s: float,
    *,
    warmup_s: float = 0.0,
    patience_s: float = _PATIENCE_S,
    pace: Pace | None = None,
) -> list[Call]:
    """Let each of `callers` send its next request when the last is answered; return the log.

    Times are seconds from the end of the warm-up. A request is due when its caller sends it.
    """
    pace = pace or Pace()
    log = _Log(callee, pace, pace.now() + warmup_s)

    def caller(number: int) -> None:
        index = number
        while (at := log.now()) < duration_s and log.sound:
            call = log.add(at)
            log.make(call, index)
            if call.failure:
                pace.pause(_BREATH_S)
            index += callers

    threads = [threading.Thread(target=caller, args=(n,), daemon=True) for n in range(callers)]
    for thread in threads:
        thread.start()
    give_up = time.monotonic() + warmup_s + duration_s + patience_s
    for thread in threads:
        thread.join(max(0.0, give_up - time.monotonic()))
    return log.close()


def open_loop(
    callee: Callee,
    due: Sequence[float],
    *,
    start: float,
    callers: int = CALLERS,
    patience_s: float = _PATIENCE_S,
    pace: Pace | None = None,
) -> list[Call]:
    """Send request i at `start` + `due[i]`, whatever became of those before; return the log in order of `due`.

    `start` is on the scale of `pace`. Returns when all are answered, or `patience_s` after the last was due.
    """
    pace = pace or Pace()
    log = _Log(callee, pace, start)
    desk = _Desk(log, callers)
    for index, at in enumerate(due):
        pace.until(start + at)
        desk.hand_out(index, log.add(at))
    log.settled(patience_s)
    calls = log.close()
    desk.close()
    return calls


class _Log:
    """Every call of one run. Callers write to it from their threads; `close` takes what stands there then."""

    def __init__(self, callee: Callee, pace: Pace, start: float) -> None:
        self._callee = callee
        self._pace = pace
        self._start = start
        self._calls: list[Call] = []
        self._finished = 0
        self._failed = False
        self._changed = threading.Condition()
        self._bug: Exception | None = None
        self._closed = False

    @property
    def sound(self) -> bool:
        """Whether there is a point in going on."""
        return self._bug is None and not self._closed

    def now(self) -> float:
        """Seconds since the start of what is measured; negative in the warm-up."""
        return self._pace.now() - self._start

    def add(self, due_s: float) -> Call:
        call = Call(due_s=due_s)
        self._calls.append(call)
        return call

    def make(self, call: Call, index: int) -> None:
        """Make a call and write down what became of it. Nothing is sent any more once the log is closed."""
        if not self.sound:
            return
        call.sent_s = self.now()
        try:
            self._callee.call(index)
        except HastenError as error:
            # The first error speaks for all: each of them would hold on to what it was raised from.
            call.failure, call.error = error.code, None if self._failed else error
            self._failed = True
        except Exception as error:
            # No target raises this: it is a bug, which the caller's thread must not swallow.
            self._bug = error
        call.done_s = self.now()
        with self._changed:
            self._finished += 1
            self._changed.notify_all()

    def settled(self, patience_s: float) -> None:
        """Wait until every call that was added is finished, but no longer than `patience_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._finished == len(self._calls) or not self.sound, patience_s)

    def close(self) -> list[Call]:
        """The log as it stands. Raises a bug that a caller met."""
        self._closed = True
        if self._bug is not None:
            raise self._bug
        return [replace(call) for call in self._calls]


class _Desk:
    """Hands requests out to callers, and takes on another caller where none is free."""

    def __init__(self, log: _Log, most: int) -> None:
        self._log = log
        self._most = most
        self._requests: queue.SimpleQueue[tuple[int, Call] | None] = queue.SimpleQueue()
        self._free = threading.Semaphore(0)
        self._callers = 0

    def hand_out(self, index: int, call: Call) -> None:
        self._requests.put((index, call))
        if not self._free.acquire(blocking=False) and self._callers < self._most:
            self._callers += 1
            threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Send the callers home; those that still wait for an answer go when they have it."""
        for _ in range(self._callers):
            self._requests.put(None)

    def _serve(self) -> None:
        while (item := self._requests.get()) is not None:
            index, call = item
            self._log.make(call, index)
            self._free.release()
