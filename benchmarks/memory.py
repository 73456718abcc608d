"""How much memory does the main job take? Optimize a model and watch the whole tree of processes.

One command: make bench-memory. Optimizes zoo:minilm (90 MB of weights) and prints the largest sum of the proportional
set sizes of all its processes (each shared page counted once). Exit status 1 where that exceeds the bound of 4 GiB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

LIMIT_MB = 4096


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="zoo:minilm")
    parser.add_argument("--budget", default="5m")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hasten.cli", "optimize", given.model, "--out", str(Path(folder) / "b")]
        process = psutil.Popen([*command, "--budget", given.budget, "--json"], stdout=subprocess.DEVNULL)
        peak, parts = watch(process)
    print(f"peak {peak:.0f} MB of {LIMIT_MB} MB; at the peak: {', '.join(parts)}")
    print(f"exit status of optimize: {process.returncode}")
    return int(peak > LIMIT_MB or process.returncode != 0)


def watch(process: psutil.Popen) -> tuple[float, list[str]]:
    """Sample every 50 ms until the process ends; return the peak in MB and what it was made of."""
    peak, parts = 0.0, [""]
    while process.poll() is None:
        sizes = {one.pid: size for one in [process, *children(process)] if (size := proportional_mb(one))}
        if sum(sizes.values()) > peak:
            peak = sum(sizes.values())
            parts = [f"{size:.0f} MB" for size in sorted(sizes.values(), reverse=True)]
        time.sleep(0.05)
    return peak, parts


def children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def proportional_mb(process: psutil.Process) -> float:
    try:
        return process.memory_full_info().pss / 2**20
    except psutil.Error:
        return 0.0


if __name__ == "__main__":
    sys.exit(main())
