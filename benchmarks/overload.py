"""Overload on the real server, beside Triton. Writes docs/overload.md and its plots.

One command: make bench-overload. Servers run pinned to the first core together with their engines, one at a time under
load; requests come in an open loop from the second. What is compared takes turns, so that a machine that is slower for
a minute is so for all. The page is written after each part, and with what there is where the run is ended early
(Ctrl-C, SIGTERM). Exit status 1 where a bar is missed. About 25 minutes a model; with --short about six. The first run
optimizes each model besides, for the ladder.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from hasten.bundle.read import open_bundle
from hasten.measure.circumstances import Machine, circumstances
from hasten.serve.policy import Lane, Policy
from hasten.spec.variant import REFERENCE
from overloading import subjects
from overloading.arriving import KINDS, LEAD_IN_S, drawn
from overloading.bare import bare
from overloading.lone import in_turn
from overloading.outcome import Outcome, accuracy, outcome, recovery_s
from overloading.page import page
from overloading.plots import draw
from overloading.sender import Message, closed, send
from overloading.subjects import BATCH, MIX, lanes_of, serve_toml, subject
from overloading.verdict import ADAPTIVE, BARE, HASTEN, LADDER_LOAD, TELLING, Cell, Found, Setting, bars
from servers import hasten, triton, triton_onnx
from servers.bundle import MODEL
from servers.process import Server

PAGE = Path(__file__).parent.parent / "docs" / "overload.md"
NATIVE = Path(__file__).parent.parent / "build" / "native"
SERVER_CORE, LOAD_CORE = 0, 1
LOADS, SHORT_LOADS = (0.5, 1.0, 1.5, 2.0, 3.0), (1.0, 3.0)
# Whoever stands beside hasten gets fewer of them.
FEWER_LOADS = (1.0, 3.0)
LADDER = "hasten, ladder"
TRITON = "triton"
SERVERS = (HASTEN, LADDER, TRITON)
PARTS = ("lone", "batcher", "load")
# Critical work at half of the capacity beside background work at three times it.
CROWD_LOAD, CROWD = 3.5, (0.5, 0.0, 3.0)
FIXED = (Setting(1, 0.0), Setting(4, 0.0), Setting(8, 0.0), Setting(8, 10.0))
SHORT_FIXED = (Setting(1, 0.0), Setting(4, 0.0), Setting(8, 10.0))
# Turns of all settings at each load, of so many seconds, after so many of warming up; and a queue that is full soon and
# empty soon after.
TURNS, TURN_S, WARM_S, TURN_CAPACITY = 6, 2.0, 2.0, 32
# Turns of all loads and kinds of arrivals.
LOAD_TURNS = 3
# Launches of server, engine and bare socket, lone requests to each, and the rest after each in times that one takes.
LONE_LAUNCHES, SHORT_LONE_LAUNCHES, LONE, LONE_PAUSE = 8, 3, 40, 2.0
# A step run must be long enough for the level to come back.
STEP_S, CALM_S = 36.0, Policy().settle_s
ONE_LANE = (Lane(max_age_s=10.0),)
T = TypeVar("T")


def main() -> int:
    given = _given()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    machine = Machine()
    before = machine.snapshot()
    found: list[Found] = []

    def write() -> None:
        around = circumstances(before, machine.snapshot())
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(page(found, draw(found, given.out.with_suffix("")), around, given))

    ended = False
    try:
        for name in given.models:
            with tempfile.TemporaryDirectory() as folder:
                began = time.monotonic()
                try:
                    _Judge(name, Path(folder), given).judge(found, write)
                except (SystemExit, OSError, subprocess.CalledProcessError) as error:
                    print(f"{name} failed: {error}", file=sys.stderr, flush=True)
                print(f"{name} took {(time.monotonic() - began) / 60:.1f} minutes", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        ended = True
        print("ended early: the page shows what there is", file=sys.stderr, flush=True)
    finally:
        write()
    judged = [bar for one in found for bar in bars(one)]
    for bar in judged:
        print(f"{bar.model}: {bar.name}: {bar.found}; {bar.asked}: {bar.word}")
    return 130 if ended else 0 if judged and all(bar.met for bar in judged) else 1


def _given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a quick look at both models: about 12 minutes")
    parser.add_argument("--seconds", type=float, help="length of a run under load  [default: 7]")
    parser.add_argument("--rounds", type=int, help="[default: 1]")
    parser.add_argument("--models", nargs="+", default=["ppocr-rec", "minilm"])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--loads", nargs="+", type=float, help="[default: 0.5, 1, 1.5, 2, 3]")
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--ladder-budget", type=float, default=240.0, help="seconds for hasten optimize, once a model")
    parser.add_argument("--native", type=Path, default=NATIVE, help="the compiled tree; without one the source serves")
    parser.add_argument("--note", default="", help="what the page shall say about the machine")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page, PAGE.md; its plots go into PAGE/ beside it")
    given = parser.parse_args()
    if not given.out.suffix:
        parser.error(f"--out {given.out}: a page has an ending, as in {given.out}.md; without it is where its plots go")
    given.seconds = given.seconds or (2.5 if given.short else 7.0)
    given.rounds = given.rounds or 1
    given.native = given.native if given.native.is_dir() else None
    given.loads = given.loads or (SHORT_LOADS if given.short else LOADS)
    return given


class _Judge:
    """One model: what its servers make of each load."""

    def __init__(self, name: str, work: Path, given: argparse.Namespace) -> None:
        self._work, self._given = work, given
        self._rng = np.random.default_rng(0)
        self._servers = list(given.servers)
        self._subject = subject(name, work)
        self._climbing: Path | None = None
        if LADDER in self._servers:
            self._climbing = subjects.climbing(name, given.ladder_budget)
            if self._climbing is None:
                self._say("no variant was proven to be faster: no ladder")
                self._servers.remove(LADDER)
        self._round = 0

    def judge(self, all_found: list[Found], write: Callable[[], None]) -> None:
        """Add what is found to `all_found`; `write` is called after each part."""
        found: Found | None = None
        began = time.monotonic()
        for number in range(self._given.rounds):
            self._round = number
            self._say(f"round {number + 1} of {self._given.rounds}")
            rate = self._capacity()
            if found is None:
                found = Found(self._subject.name, rate, BATCH / rate)
                all_found.append(found)
            # Loads are multiples of what the server carries now: an old figure would make them something else.
            found.capacities.append(rate)
            found.capacity, found.batch_s = rate, BATCH / rate
            lanes = lanes_of(found.batch_s)
            parts: dict[str, Callable[[], None]] = {
                "lone": lambda one=found: self._lone(one),
                "batcher": lambda one=found: self._batcher(one),
            }
            parts = {name: part for name, part in parts.items() if name in self._given.parts}
            for name in self._servers if "load" in self._given.parts else ():
                parts[name] = lambda name=name, one=found, lanes=lanes: self._under_load(name, one, lanes)
            for name in self._permuted(list(parts)):
                self._try(found, name, parts[name])
                found.took_s = time.monotonic() - began
                write()
            found.capacity = float(np.median(found.capacities))
            found.batch_s = BATCH / found.capacity
        write()

    def _try(self, found: Found, what: str, step: Callable[[], None]) -> None:
        """One server that does not start is no reason to lose what the others would have shown."""
        try:
            step()
        except (SystemExit, OSError, subprocess.CalledProcessError) as error:
            words = str(error).strip().splitlines()
            found.troubles.append(f"{what}, round {self._round + 1}: {words[0] if words else type(error).__name__}")
            self._say(f"{what} failed: {error}")

    def _capacity(self) -> float:
        """Requests per second that the server carries in a closed loop, with its queue filled once over."""
        with self._hasten(self._subject.bundle, serve_toml([])) as server:
            # What disturbs a server makes it slower only, and a capacity that is too low would be no overload.
            rate = max(self._closed(server, self._subject.messages[1]) for _ in range(3))
        self._say(f"capacity {rate:.1f} requests/s")
        return rate

    def _lone(self, found: Found) -> None:
        """Launched anew a few times: processes differ by where their memory lies."""
        bundle, pause_s = self._subject.bundle, LONE_PAUSE / found.capacity
        for _ in range(SHORT_LONE_LAUNCHES if self._given.short else LONE_LAUNCHES):
            with ExitStack() as up:
                sides = {
                    HASTEN: up.enter_context(self._hasten(bundle, serve_toml([]))),
                    BARE: up.enter_context(bare(bundle, SERVER_CORE, self._work)),
                }
                if TRITON in self._servers:
                    sides[TRITON] = up.enter_context(self._triton(lanes_of(found.batch_s), found.batch_s))
                found.lone.append(
                    in_turn(
                        {name: side.http for name, side in sides.items()},
                        self._subject.messages[1],
                        bundle,
                        count=LONE,
                        pause_s=pause_s,
                        cores=(SERVER_CORE, LOAD_CORE),
                        work=self._work,
                    )
                )

    def _batcher(self, found: Found) -> None:
        """All settings at all loads, which are always five. Their servers are all there, one under load at a time."""
        settings = (ADAPTIVE, *(SHORT_FIXED if self._given.short else FIXED))
        with ExitStack() as up:
            servers = {setting: up.enter_context(self._batching(setting)) for setting in settings}
            subjects.set_serving(self._subject.bundle, subjects.SERVING)
            for setting in self._permuted(settings):
                self._closed(servers[setting], self._subject.messages[1], WARM_S)
            for turn in range(1 if self._given.short else TURNS):
                for load in self._permuted(LOADS):
                    for setting in self._permuted(settings):
                        server = replace(servers[setting], name=str(setting))
                        played, _ = self._play(server, found, "poisson", load, ONE_LANE, seconds=TURN_S, turn=turn)
                        found.batcher[setting, load].append(played.steady)

    @contextmanager
    def _batching(self, setting: Setting) -> Generator[Server]:
        fixed, serving = setting != ADAPTIVE, subjects.SERVING
        if fixed:
            serving = msgspec.structs.replace(serving, max_batch=setting.batch, max_delay_ms=setting.delay_ms)
        subjects.set_serving(self._subject.bundle, serving)
        config = serve_toml([], company="window" if fixed else "adaptive", capacity=TURN_CAPACITY)
        with self._hasten(self._subject.bundle, config) as server:
            yield server

    def _under_load(self, name: str, found: Found, lanes: Sequence[Lane]) -> None:
        with self._server(name, lanes, found.batch_s) as server:
            message = self._subject.messages[1]
            found.own_capacity[name] = self._closed(server, message)
            if name == LADDER:
                self._on_the_ladder(server, found, lanes)
                return
            loads = [load for load in self._given.loads if name == HASTEN or load in FEWER_LOADS]
            cells = [Cell(name, kind, load) for kind in self._given.kinds for load in loads]
            # What is asked of hasten is how its loads compare: of single runs the luckiest would be the most.
            for turn in range(LOAD_TURNS if name == HASTEN and not self._given.short else 1):
                for cell in self._permuted(cells):
                    played, _ = self._play(server, found, cell.kind, cell.load, lanes, turn=turn)
                    found.runs[cell].append(played)
            # Long enough for the critical requests of all rounds to tell 99.9 % from less.
            enough = 1.2 * TELLING / (CROWD[0] * found.capacity) / self._given.rounds
            seconds = None if self._given.short or name != HASTEN else max(self._given.seconds, enough)
            found.crowd[name].append(self._play(server, found, "poisson", CROWD_LOAD, lanes, CROWD, seconds)[0])

    def _on_the_ladder(self, server: Server, found: Found, lanes: Sequence[Lane]) -> None:
        """Loads upwards, so that no run begins on the level that a higher load before it left behind."""
        assert self._climbing is not None
        accuracies = subjects.accuracies(self._climbing)
        found.top_accuracy = accuracies[REFERENCE]
        time.sleep(CALM_S + 1)
        for load in [LADDER_LOAD] if self._given.short else sorted({LADDER_LOAD, *self._given.loads}):
            played, _ = self._play(server, found, "poisson", load, lanes)
            found.runs[Cell(LADDER, "poisson", load)].append(played)
            if load == LADDER_LOAD:
                found.accuracy.append(accuracy(played.variants, accuracies))
        time.sleep(CALM_S + 1)
        length = STEP_S if self._given.short else max(STEP_S, self._given.seconds)
        played, back = self._play(server, found, "step", LADDER_LOAD, lanes, seconds=length)
        if any(name and name != REFERENCE for name in played.variants):
            found.recovery.append(back or 0.0)
        else:
            self._say("the step was carried by the top variant: nothing to come back from")

    def _play(
        self,
        server: Server,
        found: Found,
        kind: str,
        load: float,
        lanes: Sequence[Lane],
        mix: Sequence[float] = MIX,
        seconds: float | None = None,
        turn: int = 0,
    ) -> tuple[Outcome, float | None]:
        """One run, and how long it took to come back to the top variant where that is a question."""
        # Of a round and turn, every server and setting gets the same arrivals.
        spells = 10_000 * turn + 1000 * self._round + 100 * KINDS.index(kind)
        seed, length = spells + round(10 * load), seconds or self._given.seconds
        given = drawn(kind, load, found.capacity, length, mix[: len(lanes)], seed, spells, min(LEAD_IN_S, length / 2))
        which = given.lanes if len(lanes) > 1 else np.ones(len(given.due), int)
        log = send(server.http, self._subject.messages, given.due, which, LOAD_CORE, self._work)
        played = outcome(given, log, subjects.deadlines(lanes))
        self._say(
            f"{server.name} {kind} {load:g}: goodput {played.goodput:.1f}/s of {played.offered:.1f}/s, in time "
            f"{', '.join(f'{played.attainment(n):.1%}' for n in range(len(lanes)))}, sent late {played.late_ms:.2f} ms"
        )
        return played, recovery_s(given, log, REFERENCE)

    def _closed(self, server: Server, message: Message, seconds: float | None = None) -> float:
        """Requests per second from twice as many callers as a batch has rows; the first quarter warms up."""
        length = seconds or max(4.0, self._given.seconds / 2)
        log = closed(server.http, message, 2 * BATCH, length, LOAD_CORE, self._work)
        begin = length / 4
        return float(((log.status == 200) & (log.done >= begin) & (log.done < length)).sum()) / (length - begin)

    @contextmanager
    def _server(self, name: str, lanes: Sequence[Lane], batch_s: float) -> Generator[Server]:
        if name == TRITON:
            with self._triton(lanes, batch_s) as server:
                yield server
            return
        ladder = name == LADDER
        bundle = self._climbing if ladder else self._subject.bundle
        assert bundle is not None
        with self._hasten(bundle, serve_toml(lanes, ladder=ladder)) as server:
            yield replace(server, name=name)

    @contextmanager
    def _hasten(self, bundle: Path, config: str) -> Generator[Server]:
        with hasten.running(
            [bundle], self._work, core=SERVER_CORE, config=config, source=self._given.native or hasten.SOURCE
        ) as server:
            yield server

    @contextmanager
    def _triton(self, lanes: Sequence[Lane], batch_s: float) -> Generator[Server]:
        with tempfile.TemporaryDirectory() as folder:
            signature = open_bundle(self._subject.bundle).manifest.signature
            model = self._subject.bundle / MODEL
            triton_onnx.write_onnx(model, self._subject.name, signature, lanes, batch_s, BATCH, Path(folder))
            with triton.serving(Path(folder), triton_onnx.python(), self._work, core=SERVER_CORE) as server:
                yield server

    def _permuted(self, items: Sequence[T]) -> list[T]:
        return [items[number] for number in self._rng.permutation(len(items))]

    def _say(self, words: str) -> None:
        print(f"{self._subject.name}: {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
