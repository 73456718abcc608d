"""Lone requests: to servers, to the engine behind a bare socket and to the engine alone, in turn, one by one.

What disturbs a machine lasts for seconds or minutes, so that neighbours meet the same; and the order is drawn anew each
time. All rest as long, so that caches and clocks are equally cold. `main` is the process that asks, on the core that no
server has; it spins while an answer is on its way, for to wake a core that sleeps takes time that is not the server's.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from hasten.engine.memory import keep_freed_memory
from overloading.alone import alone
from overloading.sender import KEPT, PATIENCE_S, Connection, Message
from overloading.verdict import Lone

__all__ = ["asker", "in_turn"]

# Of the process that asks, before each request; longer pauses are slept through.
_SPIN_S = 0.002
# The first ones wake whoever has rested for longer, and are not counted.
_FIRST = 2
_CHUNK = 2**18
_ENGINE = "engine"


def in_turn(
    ports: Mapping[str, int],
    message: Message,
    bundle: Path,
    *,
    count: int,
    pause_s: float,
    cores: tuple[int, int],
    work: Path,
) -> Lone:
    """Ask what listens on these ports, by name, and an engine that is started for it, so many times each, with this
    pause after each answer. `cores` are the servers' and the asker's.
    """
    folder = work / "lone"
    folder.mkdir(exist_ok=True)
    for side, port in ports.items():
        (folder / side).write_bytes(message.raw(port))
    plan = {"ports": ports, "bundle": str(bundle), "count": count, "pause_s": pause_s, "core": cores[0]}
    (folder / "plan.json").write_text(json.dumps(plan))
    command = ["taskset", "-c", str(cores[1]), sys.executable, "-m", "overloading.lone", str(folder)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[1])
    took = {side: np.array(times) for side, times in json.loads((folder / "took.json").read_text()).items()}
    beyond = {side: float(np.median(took[side] - took[_ENGINE])) for side in ports}
    return Lone(float(np.median(took[_ENGINE])), beyond)


def main(folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    # A pause of the collector would be taken for the server's, and so would pages that the kernel clears.
    gc.disable()
    keep_freed_memory(KEPT)
    sides: dict[str, Callable[[], float]] = {}
    for side, port in plan["ports"].items():
        sides[side] = asker(Connection(port), (folder / side).read_bytes())
    took: dict[str, list[float]] = {side: [] for side in [*sides, _ENGINE]}
    order = np.random.default_rng()
    with alone(Path(plan["bundle"]), plan["core"]) as engine:
        sides[_ENGINE] = engine.run_ms
        for _ in range(_FIRST + plan["count"]):
            for side in order.permutation(list(sides)):
                _rest(plan["pause_s"])
                took[side].append(sides[side]())
    (folder / "took.json").write_text(json.dumps({side: times[_FIRST:] for side, times in took.items()}))


def _rest(pause_s: float) -> None:
    due = time.perf_counter() + pause_s
    time.sleep(max(0.0, pause_s - _SPIN_S))
    while time.perf_counter() < due:
        pass


def asker(connection: Connection, request: bytes) -> Callable[[], float]:
    """Return what sends a request and returns the milliseconds until the last byte of its answer was received. A server
    that does not answer, or not with 200, ends the process.
    """

    def ask() -> float:
        connection.complete, connection.text, connection.unsent = False, b"", memoryview(request)
        began = ended = time.perf_counter()
        while not connection.complete:
            if connection.unsent:
                connection.write()
            try:
                data = connection.socket.recv(_CHUNK)
            except BlockingIOError:
                if time.perf_counter() - began > PATIENCE_S:
                    sys.exit(f"a server has not answered for {PATIENCE_S:g} s")
                continue
            if not data:
                sys.exit("a server has closed the connection")
            ended = time.perf_counter()
            connection.parser.feed_data(data)
        status = connection.parser.get_status_code()
        return (ended - began) * 1e3 if status == 200 else sys.exit(f"a server has answered with {status}")

    return ask


if __name__ == "__main__":
    main(Path(sys.argv[1]))
