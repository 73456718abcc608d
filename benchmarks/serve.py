"""hasten beside its peers, over HTTP and gRPC, and beside its own engine. Writes docs/serving_benchmarks.md.

One command: make bench-serve; with SERVE=--short it is a quick look. All servers are pinned to the first core, where
one at a time runs and the others stand still; the load comes from the second (wrk and h2load, Debian's packages). Each
round gives every server one burst in every case, in random order; a ratio is paired by round. Answers are checked
before the clock runs. Exit status 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from hasten.measure.circumstances import Machine, circumstances
from servers import bentoml, hasten, litserve, mlserver, rayserve, triton
from servers.identity import LARGE, SMALL, write_bundle
from servers.process import Server
from serving.cases import CASES, COMPILED, COMPILED_LOCAL, LOCAL, OURS, SERVERS, loads
from serving.entrants import Entrants
from serving.load import require_tools
from serving.page import page
from serving.real import MODELS, REAL_LONGER, in_process, mean_batch, real
from serving.verdict import Race, RealRace

PAGE = Path(__file__).parent.parent / "docs" / "serving_benchmarks.md"
NATIVE = Path(__file__).parent.parent / "build" / "native"
SERVER_CORE, LOAD_CORE = 0, 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="6 rounds of 1 s: about 8 minutes")
    parser.add_argument("--rounds", type=int, help="at least 6  [default: 12]")
    parser.add_argument("--seconds", type=float, help="length of a burst, whole seconds  [default: 2]")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument(
        "--servers", nargs="+", choices=SERVERS, default=list(SERVERS), help="hasten and one peer at least"
    )
    parser.add_argument(
        "--cases", nargs="+", default=[""], help="those whose names hold one of these words, such as 128"
    )
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--note", default="", help="what the page shall say about the machine")
    parser.add_argument("--native", type=Path, default=NATIVE, help="the compiled tree; without one it takes no part")
    parser.add_argument("--out", type=Path, default=PAGE)
    given = parser.parse_args()
    given.rounds = given.rounds or (6 if given.short else 12)
    given.seconds = given.seconds or (1.0 if given.short else 2.0)
    require_tools()
    machine = Machine()
    before = machine.snapshot()
    with tempfile.TemporaryDirectory() as folder:
        work, rng = Path(folder), np.random.default_rng(0)
        races, falls = peers(work, given, rng)
        reals = [against_engine(name, work, given, rng) for name in given.models]
    around = circumstances(before, machine.snapshot())
    given.out.write_text(page(races, reals, around, falls, given))
    for line in (*map(str, races), *map(str, reals)):
        print(line)
    return 0 if all(race.met for race in (*races, *reals)) else 1


def peers(work: Path, given: argparse.Namespace, rng: np.random.Generator) -> tuple[list[Race], Counter[str]]:
    """A burst for each server in every case of every round; also how often each had to be started anew."""
    bundles = [write_bundle(model, work / model.name) for model in (SMALL, LARGE)]
    races = [Race(case) for case in CASES if any(word in case.name for word in given.cases)]
    names = taking_part(given) if races else []
    with Entrants(partial(serving, bundles=bundles, given=given), names, work, LOAD_CORE) as entrants:
        turns = [(race, name) for race in races for name in race.case.servers if name in names]
        for race, name in turns:
            print(f"warming up {name}: {race.case.name}", file=sys.stderr, flush=True)
            entrants.warm_up(race.case, name, loads(race.case, name, given.connections))
        for number in range(given.rounds):
            for index in rng.permutation(len(turns)):
                race, name = turns[index]
                race.found[name].append(entrants.ask(race.case, name, given.seconds))
            print(f"round {number + 1} of {given.rounds}", file=sys.stderr, flush=True)
    return races, entrants.falls


def taking_part(given: argparse.Namespace) -> list[str]:
    """The servers that are asked for and are there."""
    return [name for name in given.servers if given.native.is_dir() or name not in (COMPILED, COMPILED_LOCAL)]


def serving(
    name: str, work: Path, *, bundles: Sequence[Path], given: argparse.Namespace
) -> AbstractContextManager[Server]:
    """A server by its name, pinned to its core."""
    if name in OURS:
        config = '[workers]\nisolation = "none"\n' if name in (LOCAL, COMPILED_LOCAL) else ""
        source = given.native if name in (COMPILED, COMPILED_LOCAL) else hasten.SOURCE
        return hasten.running(bundles, work, name=name, core=SERVER_CORE, config=config, source=source)
    if name == "triton":
        return triton.running((SMALL, LARGE), work, core=SERVER_CORE)
    if name == "MLServer":
        return mlserver.running(SMALL, work, core=SERVER_CORE)
    alone = {"LitServe": litserve, "BentoML": bentoml, "Ray Serve": rayserve}[name]
    return alone.running(work, core=SERVER_CORE)


def against_engine(name: str, work: Path, given: argparse.Namespace, rng: np.random.Generator) -> RealRace:
    """A real model through the server, and the same engine without one, in turn."""
    model, seconds = real(name, work), REAL_LONGER * given.seconds
    race = RealRace(name, model.shapes)
    with ExitStack() as stack:
        engine, servers = stack.enter_context(in_process(model, SERVER_CORE)), dict[str, Server]()
        for side in ("hasten", *([COMPILED] if given.native.is_dir() else [])):
            (folder := work / f"{name}-{side[8:] or 'plain'}").mkdir()
            source = given.native if side == COMPILED else hasten.SOURCE
            up = hasten.running([model.bundle], folder, core=SERVER_CORE, source=source)
            servers[side] = stack.enter_context(up)
            model.load.run(servers[side].http, 1, LOAD_CORE, work)
        for _ in range(given.rounds):
            for side in rng.permutation([*servers, "engine"]):
                if side == COMPILED:
                    race.compiled.append(model.load.run(servers[side].http, seconds, LOAD_CORE, work)[0].rate)
                    continue
                server = servers["hasten"]
                if side == "engine":
                    rate, cpu_us = engine.run(seconds)
                    race.engine.append(rate)
                    race.engine_cpu_us.append(cpu_us)
                    continue
                rows, batches = mean_batch(server, name)
                before = server.cpu_s()
                race.server.append(model.load.run(server.http, seconds, LOAD_CORE, work)[0].rate)
                after_rows, after_batches = mean_batch(server, name)
                race.server_cpu_us.append((server.cpu_s() - before) / (after_rows - rows) * 1e6)
                race.batch.append((after_rows - rows) / (after_batches - batches))
    return race


if __name__ == "__main__":
    sys.exit(main())
