"""Load: who calls when. Closed loops, Poisson arrivals, recorded traces; and a paired comparison of two targets.

In an open loop a request's latency counts from the moment it was due, not from when a caller got round to sending it:
otherwise a slow server would slow its own load down and hide its queue (coordinated omission, Tene 2013).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from hasten.errors import UsageError
from hasten.spec.measurement import Figure
from hasten.spec.values import Value
from hasten.stats.percentiles import percentile
from hasten.stats.ratio import speedup

__all__ = ["Callee", "Load", "LoadResult", "arrivals", "compare_targets", "parse_load", "run_load"]

_CALLERS = 64


class Load(Value, frozen=True):
    """A traffic pattern. `value` is the number of callers (closed) or requests per second (poisson)."""

    kind: Literal["closed", "poisson", "trace"]
    value: float = 1.0
    path: str = ""


class Callee(Protocol):
    """Something that predicts. `call(i)` answers sample i (modulo its samples) and returns when it is done;
    thread-safe.
    """

    def call(self, index: int) -> None:
        """Make one prediction."""
        ...


class LoadResult(Value, frozen=True):
    """Latencies in ms and predictions per second over one run; failed calls are counted, never timed."""

    latency_p50_ms: Figure
    latency_p95_ms: Figure
    latency_p99_ms: Figure
    throughput_rps: Figure
    failed: int


def parse_load(text: str) -> Load:
    """Read `closed:N`, `poisson:RPS` or `trace:FILE`. Raises `UsageError`."""
    kind, _, rest = text.partition(":")
    try:
        if kind == "closed" and int(rest) >= 1:
            return Load(kind="closed", value=int(rest))
        if kind == "poisson" and 0 < float(rest) < 1e6:
            return Load(kind="poisson", value=float(rest))
    except ValueError:
        pass
    if kind == "trace" and rest:
        return Load(kind="trace", path=rest)
    raise UsageError(
        f"{text!r} is no load.",
        remedy="Write closed:N (N callers), poisson:RPS, or trace:FILE (seconds, one a line).",
    )


def arrivals(load: Load, duration_s: float, seed: int) -> list[float]:
    """Return due times in seconds from the start, for an open loop."""
    if load.kind == "trace":
        return _trace(Path(load.path), duration_s)
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1 / load.value, max(1, int(load.value * duration_s * 1.5) + 20))
    times = np.cumsum(gaps)
    return [float(t) for t in times[times < duration_s]]


def run_load(callee: Callee, load: Load, duration_s: float, *, seed: int = 0) -> LoadResult:
    """Put the load on one target for about `duration_s` seconds."""
    if load.kind == "closed":
        return _closed(callee, int(load.value), duration_s)
    return _open(callee, arrivals(load, duration_s, seed))


def compare_targets(a: Callee, b: Callee, *, rounds: int, runs: int, seed: int, tick: Callable[[int], None]) -> Figure:
    """Return how many times faster `a` is than `b`: one caller, interleaved rounds in random order, paired by
    round.
    """
    rng = np.random.default_rng(seed)
    times: dict[int, list[float]] = {0: [], 1: []}
    for number in range(rounds):
        first = int(rng.integers(1 << 30))
        for side in (0, 1) if rng.random() < 0.5 else (1, 0):
            callee = (a, b)[side]
            callee.call(first)
            times[side].append(float(np.median([_timed(callee, first + i) for i in range(runs)])))
        tick(number + 1)
    return speedup(times[1], times[0], seed=seed)


def _timed(callee: Callee, index: int) -> float:
    started = time.perf_counter()
    callee.call(index)
    return (time.perf_counter() - started) * 1e3


def _closed(callee: Callee, callers: int, duration_s: float) -> LoadResult:
    """Each caller sends its next request when the last is answered."""
    times: list[float] = []
    failures: list[Exception] = []
    callee.call(0)
    end = time.perf_counter() + duration_s

    def caller(number: int) -> None:
        index = number
        while time.perf_counter() < end:
            try:
                times.append(_timed(callee, index))
            except Exception as error:
                failures.append(error)
                return
            index += callers

    threads = [threading.Thread(target=caller, args=(n,), daemon=True) for n in range(callers)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _result(times, time.perf_counter() - started, failures)


def _open(callee: Callee, due: Sequence[float]) -> LoadResult:
    times: list[float] = []
    failures: list[Exception] = []
    callee.call(0)
    started = time.perf_counter()

    def one(index: int, at: float) -> None:
        try:
            callee.call(index)
        except Exception as error:
            failures.append(error)
        else:
            times.append((time.perf_counter() - started - at) * 1e3)

    with ThreadPoolExecutor(_CALLERS) as pool:
        for index, at in enumerate(due):
            time.sleep(max(0.0, started + at - time.perf_counter()))
            pool.submit(one, index, at)
    return _result(times, time.perf_counter() - started, failures)


def _result(times: list[float], elapsed_s: float, failures: list[Exception]) -> LoadResult:
    if not times:
        raise failures[0] if failures else UsageError("The load holds no request.", remedy="Make it longer.")
    rate = len(times) / elapsed_s
    return LoadResult(
        latency_p50_ms=percentile(times, 50),
        latency_p95_ms=percentile(times, 95),
        latency_p99_ms=percentile(times, 99),
        throughput_rps=Figure(value=rate, low=None, high=None, n=len(times), method="answered over elapsed time"),
        failed=len(failures),
    )


def _trace(path: Path, duration_s: float) -> list[float]:
    try:
        times = sorted(float(line) for line in path.read_text().split())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"The trace {path} cannot be read: {error}.", remedy="One arrival in seconds a line."
        ) from error
    return [t - times[0] for t in times if t - times[0] < duration_s]
