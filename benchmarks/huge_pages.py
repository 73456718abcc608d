"""What huge pages are worth to an engine: the same model in workers whose heap asks for them and does not.

One command: make bench-pages. A launch is three new workers, one with huge pages and two without, timed in turns of
random order while the others rest: where memory comes to lie differs from process to process, so that launches are what
repeats, and not runs. Prints how many times as fast huge pages make a batch, the ratio of the two without them (which
should be 1), and how much memory each kind takes. docs/decisions/0037 has what came of it.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from hasten.data.feed import feed, sample_for
from hasten.engine.isolate import IsolatedSession, load_isolated
from hasten.spec.target import Target
from hasten.stats.ratio import speedup
from hasten.zoo.open import zoo_data, zoo_model

CASES = (
    "minilm:onnxruntime:1", "minilm:onnxruntime:4", "minilm:openvino:4", "ppocr-rec:onnxruntime:1",
    "ppocr-rec:openvino:1", "efficientnet-lite0:onnxruntime:1", "efficientnet-lite0:onnxruntime:4",
    "efficientnet-lite0:openvino:1", "magika:onnxruntime:1", "face-detector:litert:1",
)  # fmt: skip
TURNS, TURN_MS = 4, 150.0
HEAPS = ("0", "1", "0")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", default=CASES, help="model:engine:batch")
    parser.add_argument("--launches", type=int, default=16, help="of each case  [default: 16]")
    given = parser.parse_args()
    print("| model | engine | batch | ms | huge pages: times as fast | none to none | MiB with | MiB without |")
    print("|---|---|---:|---:|---|---|---:|---:|")
    for case in given.cases:
        name, engine, batch = case.split(":")
        print(f"| {name} | {engine} | {batch} | {measured(name, engine, int(batch), given.launches)} |", flush=True)
    return 0


def measured(name: str, engine: str, batch: int, launches: int) -> str:
    """The rest of a case's row."""
    rng = np.random.default_rng(0)
    found = [launch(name, engine, batch, rng) for _ in range(launches)]
    times, megabytes = zip(*found, strict=True)
    small, huge, again = (list(column) for column in zip(*times, strict=True))
    without, with_huge, _ = np.mean(megabytes, axis=0)
    ratios = f"{_ratio(small, huge)} | {_ratio(small, again)}"
    return f"{np.median(small):.3g} | {ratios} | {with_huge:.0f} | {without:.0f}"


def launch(name: str, engine: str, batch: int, rng: np.random.Generator) -> tuple[list[float], list[float]]:
    """Milliseconds of a batch, and resident MiB, of new workers with each of `HEAPS`."""
    model, data = zoo_model(name), zoo_data(name).subset([0])
    times: list[list[float]] = [[] for _ in HEAPS]
    with ExitStack() as stack:
        workers = [stack.enter_context(_worker(model, engine, huge)) for huge in HEAPS]
        for worker in workers:
            worker.put(0, feed(worker.signature, [sample_for(worker.signature, data, 0)] * batch))
            usual = float(np.median(worker.time_ms([0] * 3, warmup=3)))
            worker.rest()
        slots = [0] * max(1, int(TURN_MS / usual))
        for _ in range(TURNS):
            for number in rng.permutation(len(HEAPS)):
                times[number].append(float(np.median(workers[number].time_ms(slots, warmup=1))))
                workers[number].rest()
        return [float(np.median(some)) for some in times], [_resident_mb(worker.pid) for worker in workers]


def _worker(model: Path, engine: str, huge: str) -> IsolatedSession:
    os.environ["GLIBC_TUNABLES"] = f"glibc.malloc.hugetlb={huge}"
    return load_isolated(model, Target(engine=engine, threads=1))


def _resident_mb(pid: int) -> float:
    [line] = [line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Rss:")]
    return int(line.split()[1]) / 1024


def _ratio(before: list[float], after: list[float]) -> str:
    found = speedup(before, after, seed=0)
    if found.value is None:
        return f"not told ({found.reason})"
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


if __name__ == "__main__":
    sys.exit(main())
