"""Real models: what a client gets through the server, against the same engine called in a process without one.

Both sides have one core and one engine thread, and both run batches of `BATCH` rows: the server's clients are twice as
many as a batch has rows, so that the next batch waits when one ends. Other sides of this module: `main` is the process
without a server.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from servers.bundle import MODEL, complete_bundle, target
from servers.process import Server
from serving.load import HttpLoad

__all__ = ["BATCH", "MODELS", "REAL_LONGER", "InProcess", "Real", "in_process", "mean_batch", "real"]

MODELS = ("ppocr-rec", "minilm")
BATCH = 4
REAL_LONGER = 4
SAMPLES = 50
# Where the process without a server finds this module, and hasten.
_FOLDERS = (str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "src"))


@dataclass(frozen=True, slots=True)
class Real:
    """A real model as a bundle, and the request of one row that is sent again and again."""

    name: str
    bundle: Path
    load: HttpLoad
    shapes: dict[str, tuple[int, ...]]


def real(name: str, work: Path, max_batch: int = BATCH) -> Real:
    """Write the bundle, of batches of at most `max_batch` rows. The sample is the one of middle length among the first
    of the model's data.
    """
    from hasten.data.feed import feed
    from hasten.engine.base import engines
    from hasten.model.open import open_model
    from hasten.wire.oip_client import encode_request
    from hasten.zoo.open import zoo_data, zoo_model

    source = zoo_model(name)
    signature, data = open_model(source).signature, zoo_data(name)
    samples = sorted(
        (data.inputs(number) for number in range(SAMPLES)), key=lambda one: sum(value.size for value in one.values())
    )
    inputs = feed(signature, [samples[len(samples) // 2]])
    folder = work / name
    folder.mkdir()
    shutil.copy2(source, folder / MODEL)
    session = engines.get("onnxruntime").load(folder / MODEL, target())
    outputs = session.run(inputs)
    session.close()
    complete_bundle(folder, name, signature, inputs, outputs, max_batch)
    body, headers = encode_request(inputs, signature)
    load = HttpLoad(f"/v2/models/{name}/infer", body, headers, 2 * max_batch)
    return Real(name, folder, load, {key: value.shape for key, value in inputs.items()})


class InProcess:
    """The engine in a process without a server."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, seconds: float) -> tuple[float, float]:
        """Batches one after another for so many seconds: rows per second, and processor time for each row in us."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(seconds, file=self._process.stdin, flush=True)
        rate, cpu_us = self._process.stdout.readline().split()
        return float(rate), float(cpu_us)


@contextmanager
def in_process(model: Real, core: int) -> Generator[InProcess]:
    """Load the bundle's model with the bundle's target, pinned to a core."""
    command = ["taskset", "-c", str(core), sys.executable, "-m", "serving.real", str(model.bundle)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*_FOLDERS, os.environ.get("PYTHONPATH", "")])}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield InProcess(process)
        process.stdin.close()


def mean_batch(server: Server, model: str) -> tuple[int, int]:
    """How many rows and how many batches the server has run so far."""
    with urllib.request.urlopen(f"{server.url}/v2/models/{model}/stats", timeout=20) as answer:
        [stats] = json.load(answer)["model_stats"]
    return int(stats["inference_count"]), int(stats["execution_count"])


def main(bundle: Path) -> None:
    from hasten.engine.base import engines

    golden = np.load(bundle / "golden/inputs.npz")
    inputs: dict[str, Any] = {key.partition("/")[2]: np.concatenate([golden[key]] * BATCH) for key in golden.files}
    with closing(engines.get("onnxruntime").load(bundle / MODEL, target())) as session:
        session.run(inputs)
        print("ready", flush=True)
        for line in sys.stdin:
            started, spent, rows = time.perf_counter(), time.process_time(), 0
            while (elapsed := time.perf_counter() - started) < float(line):
                session.run(inputs)
                rows += BATCH
            print(rows / elapsed, (time.process_time() - spent) / rows * 1e6, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
