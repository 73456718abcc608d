"""Does the server stand it for long? Fuzz, slow clients, cancelled calls, crashes, changes of models; and in turn.

One command: make soak (about an hour and a half), or `python benchmarks/soak.py --short` (a minute or two). Each row
has a server of its own, real and with an engine process. After each: the same process, right answers, no more
descriptors than before. R26 plays those rows in turn that need no tokens; its memory may grow by 1 MiB a minute in the
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
from servers.identity import TINY, write_bundle
from servers.process import Server
from soaks.good import Good
from soaks.rows import APART, ROWS, TOKEN, VARIABLES

MINUTES = {"R2": 20.0, "R6": 5.0, "R8": 5.0, "R14": 5.0, "R20": 5.0, "R26": 60.0}
SHORT_MINUTES = 0.1
SLICE_S = 20.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help=f"{SHORT_MINUTES * 60:g} s for each row")
    parser.add_argument("--rows", default=",".join(MINUTES), help="which, by comma")
    parser.add_argument("--minutes", type=float, help="for each row, instead of its own")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    failed = 0
    for name in given.rows.split(","):
        minutes = given.minutes or (SHORT_MINUTES if given.short else MINUTES[name])
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            bundle, more = write_bundle(TINY, work / "tiny"), APART.get(name, ())
            with hasten.running([bundle], work, more=more, variables=VARIABLES if more else {}) as server:
                try:
                    said = soak(name, server, 60 * minutes, random.Random(given.seed))
                except AssertionError as error:
                    failed, said = failed + 1, f"FAILED: {error}"
        print(f"{name} for {minutes:g} min, seed {given.seed}: {said}", flush=True)
    return 1 if failed else 0


def soak(name: str, server: Server, seconds: float, rng: random.Random) -> str:
    """One row, and what must hold after it."""
    good = Good(server, TOKEN if name in APART else "")
    good.check()
    files = server.process.num_fds()
    said = mix(server, seconds, rng) if name == "R26" else ROWS[name](server, seconds, rng)
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


def mix(server: Server, seconds: float, rng: random.Random) -> str:
    """The rows in turn; memory is looked at between them."""
    rows = {name: row for name, row in ROWS.items() if name not in APART}
    started, seen, slice_s = time.monotonic(), [], min(SLICE_S, seconds / (2 * len(rows)))
    while (now := time.monotonic() - started) < seconds:
        for row in rows.values():
            row(server, slice_s, rng)
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
