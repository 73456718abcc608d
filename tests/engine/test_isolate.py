"""What happens in a worker process stays there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from hasten.engine.isolate import load_isolated
from hasten.errors import EngineCrashed, EngineLoadError, EngineRunError
from hasten.spec.target import Target

Make = Callable[..., Path]
ROW = {"x": np.ones((1, 4), np.float32)}


def fake(**options: str) -> Target:
    return Target(engine="fake", options=dict(options))


def test_an_engine_that_dies_while_loading_is_reported_with_its_signal(make_linear: Make) -> None:
    with pytest.raises(EngineCrashed, match=r"died on 'load' \(SIGSEGV\)"):
        load_isolated(make_linear(), fake(die="load"))


def test_an_engine_that_dies_while_running_costs_only_its_session(make_linear: Make) -> None:
    path = make_linear()
    with load_isolated(path, fake()) as healthy, load_isolated(path, fake(die="run")) as doomed:
        with pytest.raises(EngineCrashed, match="SIGSEGV"):
            doomed.run(ROW)
        assert healthy.run(ROW)["y"].shape == (1, 3)


def test_a_session_whose_engine_died_says_so_again(make_linear: Make) -> None:
    with load_isolated(make_linear(), fake(die="run")) as doomed:
        for _ in range(2):
            with pytest.raises(EngineCrashed):
                doomed.run(ROW)


def test_a_hanging_engine_is_ended_at_its_deadline(make_linear: Make) -> None:
    with (
        load_isolated(make_linear(), fake(hang="run")) as stuck,
        pytest.raises(EngineCrashed, match="did not answer"),
    ):
        stuck.run(ROW, timeout_s=0.2)


def test_errors_keep_their_kind_across_the_process_border(make_linear: Make) -> None:
    with pytest.raises(EngineLoadError, match="told to refuse"):
        load_isolated(make_linear(), fake(fail="load"))
    with load_isolated(make_linear(), fake(fail="run")) as session, pytest.raises(EngineRunError, match="told to fail"):
        session.run(ROW)


def test_closing_leaves_no_process_and_no_descriptor(make_linear: Make) -> None:
    path = make_linear()
    load_isolated(path, fake()).close()
    before = len(os.listdir("/proc/self/fd"))
    session = load_isolated(path, fake())
    pid = session.pid
    session.close()
    session.close()
    assert not psutil.pid_exists(pid)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_refused_load_leaves_no_process_behind(make_linear: Make) -> None:
    before = set(psutil.Process().children())
    with pytest.raises(EngineLoadError):
        load_isolated(make_linear(), fake(fail="load"))
    assert set(psutil.Process().children()) == before
