"""What this machine reaches: f32 arithmetic in a large matrix product, and bytes streamed through memory and caches.

Both are measured on as many threads as the model gets, in the same rounds as the model, so that a slow hour slows both.
The product is ONNX Runtime's, which packs and blocks as well as any. The streams copy arrays with numpy, once for each
size of working set: small tensors stay in a cache, and a ceiling of main memory would be far too low for them. Source:
Williams, Waterman and Patterson, Roofline, 2009; McCalpin, STREAM, 1995 (a copy counts as bytes read and written).
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from hasten.engine.host import cores_for
from hasten.engine.isolate import IsolatedSession, load_isolated
from hasten.measure.turns import turn_ms
from hasten.spec.measurement import Figure, unmeasured
from hasten.spec.profile import Bandwidth, Ceilings
from hasten.spec.target import Target
from hasten.stats.percentiles import percentile

__all__ = ["Ceilings", "Gauge", "gauge", "no_ceilings"]

# 0.9 GFLOP: long against the start of its threads, short enough to slip between what others do on the machine.
_SIDE = 768
# Readings of each kind in one round. A 90th percentile with an interval takes 36 in all.
_READINGS = 6
# A ceiling is what the machine reaches when it is left alone: few readings are better, and no single one decides.
_PERCENTILE = 90
_SMALL = (2**17, 2**20, 2**23)
# STREAM asks for four times the last cache; where that is unknown, what most machines have.
_BEYOND = 4
_BEYOND_DEFAULT = 2**27
_MOST_OF_MEMORY = 16
# Bytes that one reading moves at least, so that starting threads does not count.
_LEAST_MOVED = 2**24


class Gauge:
    """Takes one reading of every ceiling at a time, and sums them up."""

    def __init__(self, product: IsolatedSession, streams: Streams, threads: int) -> None:
        self._product = product
        self._streams = streams
        self._threads = threads
        self._gflop_per_s: list[float] = []
        self._gb_per_s: dict[int, list[float]] = {size: [] for size in streams.sizes}

    def read(self) -> None:
        """Take readings."""
        times = turn_ms(self._product, [0] * _READINGS)
        self._gflop_per_s += [2 * _SIDE**3 / (ms * 1e6) for ms in times]
        for size, found in self._gb_per_s.items():
            found += [self._streams.gb_per_s(size) for _ in range(_READINGS)]

    def ceilings(self) -> Ceilings:
        """The 90th percentile of all readings with its interval."""
        on = f"{self._threads} thread{'s' if self._threads != 1 else ''}"
        product = f"90th percentile of products of two {_SIDE} × {_SIDE} f32 matrices, onnxruntime on {on}"
        copy = f"90th percentile of copies with numpy on {on}, bytes read and written"
        return Ceilings(
            threads=self._threads,
            compute_gflop_per_s=_figure(self._gflop_per_s, product),
            memory=tuple(
                Bandwidth(working_set_bytes=size, gb_per_s=_figure(found, copy))
                for size, found in self._gb_per_s.items()
            ),
        )


class Streams:
    """Threads that copy arrays of their own at the same time, each on its core."""

    def __init__(self, threads: int) -> None:
        self.sizes = (*_SMALL, beyond_caches())
        self._threads = threads
        self._cores = cores_for(threads)
        # Source and target take half of a thread's part each. Written to, so that the memory is really there.
        part = self.sizes[-1] // (2 * threads)
        self._arrays = [(np.ones(part, np.uint8), np.ones(part, np.uint8)) for _ in range(threads)]
        self._pool = ThreadPoolExecutor(threads)

    def gb_per_s(self, working_set: int) -> float:
        """One reading: all threads together, from the first that starts to the last that ends."""
        gate = threading.Barrier(self._threads)
        part = working_set // (2 * self._threads)
        repeats = max(1, _LEAST_MOVED // working_set)
        copies = [self._pool.submit(self._copy, number, part, repeats, gate) for number in range(self._threads)]
        spans = [copy.result() for copy in copies]
        elapsed_s = max(end for _, end in spans) - min(start for start, _ in spans)
        return 2 * part * self._threads * repeats / elapsed_s / 1e9

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _copy(self, number: int, part: int, repeats: int, gate: threading.Barrier) -> tuple[float, float]:
        if self._cores:
            os.sched_setaffinity(0, {self._cores[number]})
        source, target = (array[:part] for array in self._arrays[number])
        np.copyto(target, source)
        gate.wait()
        started = time.perf_counter()
        for _ in range(repeats):
            np.copyto(target, source)
        return started, time.perf_counter()


@contextmanager
def gauge(threads: int) -> Generator[Gauge]:
    """A gauge for `threads` threads; its worker process and its arrays live while the block runs."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="hasten-ceiling-") as folder:
        path = _product(Path(folder) / "product.onnx", rng)
        with load_isolated(path, Target(engine="onnxruntime", threads=threads)) as session:
            session.put(0, {"x": rng.random((_SIDE, _SIDE), np.float32)})
            streams = Streams(threads)
            try:
                yield Gauge(session, streams, threads)
            finally:
                streams.close()


def no_ceilings(threads: int, reason: str) -> Ceilings:
    """Ceilings that were not measured, and why."""
    return Ceilings(threads=threads, compute_gflop_per_s=unmeasured(reason), memory=())


def beyond_caches() -> int:
    """A working set that no cache holds, within a small part of the memory."""
    try:
        kind = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text().strip()
        wanted = _BEYOND * int(kind.removesuffix("K")) * 1024
    except (OSError, ValueError):
        wanted = _BEYOND_DEFAULT
    return int(min(max(wanted, _BEYOND_DEFAULT), psutil.virtual_memory().available // _MOST_OF_MEMORY))


def _product(path: Path, rng: np.random.Generator) -> Path:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [_SIDE, _SIDE]) for name in "xy")
    weights = numpy_helper.from_array(rng.random((_SIDE, _SIDE), np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "product", [x], [y], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def _figure(readings: list[float], method: str) -> Figure:
    found = percentile(readings, _PERCENTILE)
    if found.value is None:
        return found
    return Figure(value=found.value, low=found.low, high=found.high, n=found.n, method=method)
