"""Servers of a race that fall, told with servers and loads that are made up."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from servers.process import Server
from serving import entrants
from serving.cases import CASES
from serving.entrants import MOST_FALLS, Entrants
from serving.load import Burst

CASE = CASES[0]


@dataclass
class Field:
    """Starts servers that do nothing, and remembers which."""

    started: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    @contextmanager
    def start(self, name: str, work: Path) -> Generator[Server]:
        self.started.append(name)
        yield _Idle(name, psutil.Process(), 1)
        self.ended.append(name)


class _Idle(Server):
    def processes(self) -> list[psutil.Process]:
        return []


@dataclass
class Falling:
    """A load under which some bursts fail, counted from 0; that of warming up is one."""

    failing: set[int]
    count: int = 0

    def run(self, port: int, seconds: float, core: int, folder: Path) -> tuple[Burst, int]:
        self.count += 1
        if self.count - 1 in self.failing:
            sys.exit("A burst failed.")
        return Burst(float(self.count - 1), 1.0, 1.0), 1


@pytest.fixture(autouse=True)
def _unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrants, "check", lambda *_: None)


def played(name: str, failing: set[int], tmp_path: Path, field: Field) -> tuple[Burst, int]:
    load: Any = Falling(failing)
    with Entrants(field.start, ["hasten", "triton"], tmp_path, core=1) as race:
        race.warm_up(CASE, name, load)
        return race.ask(CASE, name, 1), race.falls[name]


def test_a_peer_that_falls_plays_its_burst_again(tmp_path: Path) -> None:
    field = Field()
    # Warm, a fall, warm again, and then the burst that counts.
    found, falls = played("triton", {1}, tmp_path, field)
    assert (found.rate, falls) == (3.0, 1)
    assert field.started == ["hasten", "triton", "triton"]
    assert sorted(field.ended) == ["hasten", "triton", "triton"]


def test_a_peer_that_falls_again_and_again_ends_the_run(tmp_path: Path) -> None:
    field = Field()
    with pytest.raises(SystemExit):
        played("triton", {2 * number + 1 for number in range(MOST_FALLS + 1)}, tmp_path, field)
    assert field.started.count("triton") == 1 + MOST_FALLS
    assert len(field.ended) == len(field.started)


def test_hasten_has_no_second_try(tmp_path: Path) -> None:
    field = Field()
    with pytest.raises(SystemExit):
        played("hasten", {1}, tmp_path, field)
    assert field.started == ["hasten", "triton"]
    assert len(field.ended) == 2
