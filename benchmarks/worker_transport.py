"""What does it cost to send a tensor to an engine worker and back? Shared memory against a pipe, interleaved.

One command: make bench-workers (under 20 s). The engine gives back its input, so that all of the
time is transport. The other side is what hasten did before: a head and the raw tensor through pipes, read into a buffer
of their own. Prints the microseconds of a round trip and the ratio pipe over shared memory with its 95 % interval.
"""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hasten.engine import worker
from hasten.engine.base import Probe, Tensors
from hasten.engine.isolate import load_isolated
from hasten.registry import Entry, Registry
from hasten.spec.signature import Signature
from hasten.spec.target import Format, Precision, Target
from hasten.stats.percentiles import percentile
from hasten.stats.ratio import speedup

SIZES = {"128 floats": 128, "600 KB": 150_000, "4.8 MB": 1_200_000}
ROUNDS, ROUND_S = 30, 0.08
HEAD = struct.Struct("<IQ")
Trip = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


class Echo:
    """An engine, and a session of it, that computes nothing."""

    name = "echo"
    formats: frozenset[Format] = frozenset({"onnx"})
    honours: frozenset[str] = frozenset()
    signature = Signature(inputs=(), outputs=())
    precision: Precision = "f32"

    def probe(self) -> Probe:
        return Probe(engine=self.name, reason="for the benchmark only")

    def load(self, model: Path, target: Target) -> Echo:
        return self

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        return dict(inputs)

    def close(self) -> None:
        pass


def main() -> None:
    with pipe() as through_pipe, shared() as through_memory:
        print("| tensor | pipe, us | shared memory, us | pipe / shared memory |\n|---|---|---|---|")
        for label, count in SIZES.items():
            x = np.random.default_rng(0).normal(size=count).astype(np.float32)
            for trip in (through_pipe, through_memory):
                np.testing.assert_array_equal(trip(x), x)
            times = interleaved([through_pipe, through_memory], x)
            ratio = speedup(*times)
            middle = [f"{percentile(side, 50).value:.1f}" for side in times]
            print(f"| {label} | {' | '.join(middle)} | {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] |")


def interleaved(trips: list[Trip], x: np.ndarray[Any, Any]) -> list[list[float]]:
    """Microseconds of a trip, a mean for each round; sides take turns within rounds."""
    times: list[list[float]] = [[] for _ in trips]
    for round_ in range(ROUNDS):
        order = [0, 1] if round_ % 2 else [1, 0]
        for side in order:
            started, runs = time.perf_counter(), 0
            while (elapsed := time.perf_counter() - started) < ROUND_S:
                trips[side](x)
                runs += 1
            times[side].append(elapsed / runs * 1e6)
    return times


@contextlib.contextmanager
def shared() -> Generator[Trip]:
    with load_isolated(Path(), Target(engine="echo"), command=(str(Path(__file__).resolve()), "echo")) as session:
        yield lambda x: session.run({"x": x})["x"]


@contextlib.contextmanager
def pipe() -> Generator[Trip]:
    command = [sys.executable, str(Path(__file__).resolve()), "pipe"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None

        def trip(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            send(process.stdin, x)  # type: ignore[arg-type]
            return receive(process.stdout)  # type: ignore[arg-type]

        yield trip
        process.stdin.close()


def send(stream: BinaryIO, x: np.ndarray[Any, Any]) -> None:
    head = json.dumps({"op": "run", "tensors": [["x", x.dtype.name, x.shape]]}).encode()
    stream.write(HEAD.pack(len(head), x.nbytes))
    stream.write(head)
    stream.write(x.view(np.uint8).data)
    stream.flush()


def receive(stream: BinaryIO) -> np.ndarray[Any, Any]:
    head_size, size = HEAD.unpack(exactly(stream, HEAD.size))
    [[_, dtype, shape]] = json.loads(bytes(exactly(stream, head_size)))["tensors"]
    return np.frombuffer(exactly(stream, size), dtype).reshape(shape)


def exactly(stream: BinaryIO, size: int) -> bytearray:
    buffer = bytearray(size)
    view, got = memoryview(buffer), 0
    while got < size:
        count = stream.readinto(view[got:])  # type: ignore[attr-defined]
        if not count:
            raise SystemExit
        got += count
    return buffer


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["echo"]:
            worker.engines = Registry("engine", [Entry(name="echo", target="__main__:Echo")])
            worker.main()
        case ["pipe"]:
            while True:
                send(sys.stdout.buffer, receive(sys.stdin.buffer))
        case _:
            main()
