"""The servers of a race: started once, asked one at a time while the others stand still. A peer that falls gets up.

tritonserver 2.51 with its Python backend dies now and then in the middle of a burst (a segmentation fault of its stub,
or an exception of its shared memory that nobody catches). Its burst is played again by a new one, and the page says so;
hasten has no second try.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from servers.process import Server, stopped
from serving.cases import OURS, Case, check
from serving.load import Burst, GrpcLoad, HttpLoad

__all__ = ["MOST_FALLS", "Entrants", "burst"]

MOST_FALLS = 5
"""A peer that has fallen so often ends the run."""

Start = Callable[[str, Path], AbstractContextManager[Server]]
Load = HttpLoad | GrpcLoad


class Entrants:
    """`start` brings up a server by its name, in a folder of its own. `falls` counts peers that were started anew."""

    def __init__(self, start: Start, names: Iterable[str], work: Path, core: int) -> None:
        self.falls: Counter[str] = Counter()
        self.servers: dict[str, Server] = {}
        self._start = start
        self._names = tuple(names)
        self._work = work
        self._core = core
        self._up: dict[str, ExitStack] = {}
        self._asked: dict[str, dict[str, tuple[Case, Load]]] = {}

    def __enter__(self) -> Self:
        try:
            for name in self._names:
                self._bring_up(name)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End all."""
        for up in self._up.values():
            up.close()

    def warm_up(self, case: Case, name: str, load: Load) -> None:
        """See that a server gives back what it is sent, and let it run for a second."""
        self._asked.setdefault(name, {})[case.name] = (case, load)
        check(case, self.servers[name], load)
        self._burst(case, name, 1)

    def ask(self, case: Case, name: str, seconds: float) -> Burst:
        """One burst for a server that is warm; exits where it fails."""
        with stopped(server for other, server in self.servers.items() if other != name):
            while True:
                try:
                    return burst(
                        case, self.servers[name], self._asked[name][case.name][1], seconds, self._core, self._work
                    )
                except SystemExit as error:
                    if name in OURS or self.falls[name] >= MOST_FALLS:
                        raise
                    print(f"{error}\n{name} is started anew.", file=sys.stderr, flush=True)
                self.falls[name] += 1
                self._up[name].close()
                self._bring_up(name)
                for other, load in list(self._asked[name].values()):
                    self.warm_up(other, name, load)

    def _burst(self, case: Case, name: str, seconds: float) -> Burst:
        _, load = self._asked[name][case.name]
        return burst(case, self.servers[name], load, seconds, self._core, self._work)

    def _bring_up(self, name: str) -> None:
        folder = self._work / f"{name.replace(', ', '-').replace(' ', '-')}-{self.falls[name]}"
        folder.mkdir()
        self._up[name] = stack = ExitStack()
        self.servers[name] = stack.enter_context(self._start(name, folder))


def burst(case: Case, server: Server, load: Load, seconds: float, core: int, work: Path) -> Burst:
    """One burst from a core, with the processor time that the server and its workers spent on each request."""
    port = server.grpc if case.kind == "grpc" else server.http
    assert port is not None
    before = server.cpu_s()
    try:
        found, count = load.run(port, seconds, core, work)
    except SystemExit as error:
        sys.exit(f"{error}\n{server.last_words()}")
    spent = server.cpu_s() - before
    return replace(found, cpu_us=spent / count * 1e6 if count else math.inf)
