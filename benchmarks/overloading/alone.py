"""The engine in a process without a server, asked for single rows one by one: what a lone request is held against.
`main` is the process.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from servers.bundle import MODEL, target

__all__ = ["Alone", "alone"]


class Alone:
    """The process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run_ms(self) -> float:
        """How long one run takes, by the clock of its process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())


@contextmanager
def alone(bundle: Path, core: int) -> Generator[Alone]:
    """Load the bundle's reference as the server does, pinned to a core."""
    command = ["taskset", "-c", str(core), sys.executable, "-m", "overloading.alone", str(bundle)]
    here = Path(__file__).parents[1]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=here) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Alone(process)
        process.stdin.close()


def main(bundle: Path) -> None:
    from hasten.engine.base import engines

    golden = np.load(bundle / "golden/inputs.npz")
    inputs = {key.partition("/")[2]: golden[key] for key in golden.files if key.startswith("0/")}
    with closing(engines.get("onnxruntime").load(bundle / MODEL, target())) as session:
        session.run(inputs)
        print("ready", flush=True)
        for _ in sys.stdin:
            began = time.perf_counter()
            session.run(inputs)
            print((time.perf_counter() - began) * 1e3, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
