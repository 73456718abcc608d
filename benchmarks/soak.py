"""Does the server stand it for long? Fuzz, slow clients, cancelled calls, crashes, changes of models, crosstalk; and in
turn.

One command: make soak (an hour and three quarters), or `python benchmarks/soak.py --short` (a minute or two). Each row
has a server of its own, real and with an engine process. After each: the same process, right answers, no more
descriptors than before. R26 plays the rows in turn that harm one server; its memory may grow by 1 MiB a minute in the
second half.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from servers import hasten
from servers.identity import write_bundle
from servers.process import Server
from soaks.good import TOKEN, Good
from soaks.rows import FLAGS, GUARDED, MIXED, MODELS, ROWS, VARIABLES

MINUTES = {
    "R2": 20.0,
    "R6": 5.0,
    "R8": 5.0,
    "R14": 5.0,
    "R19": 2.0,
    "R20": 5.0,
    "R22": 2.0,
    "R28": 2.0,
    "R26": 60.0,
}
SHORT_MINUTES = 0.1
SLICE_S = 20.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help=f"{SHORT_MINUTES * 60:g} s for each row")
    parser.add_argument("--rows", default=",".join(MINUTES), help="which, by comma")
    parser.add_argument("--minutes", type=float, help="for each row, instead of its own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--source", type=Path, default=hasten.SOURCE, help="the tree that serves, such as build/native")
    given = parser.parse_args()
    failed = 0
    for name in given.rows.split(","):
        minutes = given.minutes or (SHORT_MINUTES if given.short else MINUTES[name])
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            bundle, variables = write_bundle(MODELS[name], work / "tiny"), VARIABLES if name in GUARDED else {}
            flags = FLAGS.get(name, ())
            with hasten.running([bundle], work, more=flags, variables=variables, source=given.source) as server:
                try:
                    said = soak(name, server, 60 * minutes, random.Random(given.seed), bundle)
                except Exception as error:
                    # Whatever a client met: the other rows are worth their time all the same.
                    failed, said = failed + 1, f"FAILED: {type(error).__name__}: {error}"
        print(f"{name} for {minutes:g} min, seed {given.seed}: {said}", flush=True)
    return 1 if failed else 0


def soak(name: str, server: Server, seconds: float, rng: random.Random, bundle: Path) -> str:
    """One row, and what must hold after it."""
    good = Good(server, TOKEN if name in GUARDED else "")
    good.check()
    files = server.process.num_fds()
    row = mix if name == "R26" else ROWS[name]
    said = row(server, seconds, rng, bundle)
    assert server.process.is_running(), "the server ended"
    good.until_right(within_s=60)
    settle(server, files)
    return said


def settle(server: Server, files: int) -> None:
    """Descriptors are given back: those of slow clients when their time is up."""
    until = time.monotonic() + 60
    while server.process.num_fds() > files + 2:
        assert time.monotonic() < until, f"{server.process.num_fds()} descriptors, {files} before"
        time.sleep(0.5)


def mix(server: Server, seconds: float, rng: random.Random, bundle: Path) -> str:
    """The rows in turn; memory is looked at between them."""
    rows = {name: ROWS[name] for name in MIXED}
    started, seen, slice_s = time.monotonic(), [], min(SLICE_S, seconds / (2 * len(rows)))
    while (now := time.monotonic() - started) < seconds:
        for row in rows.values():
            row(server, slice_s, rng, bundle)
        seen.append((time.monotonic() - started, server.process.memory_info().rss / 2**20))
    later = [point for point in seen if point[0] > seconds / 2]
    span = later[-1][0] - later[0][0]
    grown = (later[-1][1] - later[0][1]) / (span / 60) if span else 0.0
    # In less than a few minutes a slope is the allocator's noise.
    assert span < 300 or grown < 1.0, f"memory grew by {grown:.2f} MiB a minute"
    memory = f"memory {grown:+.2f} MiB a minute over {span:.0f} s"
    return f"{len(seen)} turns of {', '.join(rows)}, {memory}, {now:.0f} s in all"


if __name__ == "__main__":
    sys.exit(main())
