"""What happens in a worker process stays there."""

from __future__ import annotations

import os
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import psutil
import pytest
from tests.engine.subjects import copy_of, sample_of

from hasten.engine.host import cores_for
from hasten.engine.isolate import IsolatedSession, load_isolated, probe_isolated
from hasten.engine.race import race
from hasten.errors import EngineCrashed, EngineLoadError, EngineRunError
from hasten.spec.target import Target
from hasten.spec.tensor import DType

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


@pytest.mark.skipif(sys.platform != "linux", reason="sessions rest on Linux only")
def test_a_session_at_rest_is_stopped_and_goes_on_when_it_is_asked(make_linear: Make) -> None:
    with load_isolated(make_linear(), fake()) as session:
        session.rest()
        session.rest()
        worker = psutil.Process(session.pid)
        while worker.status() != psutil.STATUS_STOPPED:
            pass
        assert session.run(ROW)["y"].shape == (1, 3)
        session.rest()
    assert not worker.is_running()


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


@pytest.fixture
def broken_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package in the workers' path whose engines die, hang, raise and do not import."""
    (tmp_path / "broken_engines.py").write_text(
        textwrap.dedent("""
        import os, signal, threading
        class Engine:
            def probe(self): return getattr(self, type(self).__name__)()
        class Dies(Engine):
            def Dies(self): os.kill(os.getpid(), signal.SIGKILL)
        class Hangs(Engine):
            def Hangs(self): threading.Event().wait()
        class Raises(Engine):
            def Raises(self): raise OSError("libdriver.so: cannot open shared object file")
        """)
    )
    info = tmp_path / "broken_engines-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-engines\nVersion: 1\n")
    names = ("Dies", "Hangs", "Raises", "Nowhere")
    points = "".join(f"{name.lower()} = broken_engines:{name}\n" for name in names)
    (info / "entry_points.txt").write_text(f"[hasten.engine]\n{points}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)


@pytest.mark.usefixtures("broken_engines")
@pytest.mark.parametrize(
    ("engine", "words", "timeout_s"),
    [
        ("dies", "SIGKILL", 60.0),
        ("hangs", "did not answer", 3.0),
        ("raises", "cannot open shared object file", 60.0),
        ("nowhere", "cannot be loaded", 60.0),
    ],
)
def test_an_engine_whose_probe_fails_is_a_reason(engine: str, words: str, timeout_s: float) -> None:
    probe = probe_isolated(engine, timeout_s=timeout_s)
    assert (probe.engine, probe.devices) == (engine, ())
    assert probe.reason is not None
    assert words in probe.reason


def test_an_engine_is_probed_in_a_process_of_its_own() -> None:
    before = set(psutil.Process().children())
    assert probe_isolated("fake").device("CPU") is not None
    assert set(psutil.Process().children()) == before


def test_throughput_that_meets_an_error_says_so_and_the_worker_lives_on(make_linear: Make) -> None:
    with load_isolated(make_linear(), fake(fail="run")) as session:
        session.put(0, ROW)
        with pytest.raises(EngineRunError, match="told to fail"):
            session.throughput_rps([0], callers=2, runs=8)
        assert session.peak_memory_mb() > 0


@pytest.mark.parametrize(("callers", "runs"), [(0, 1), (1, 0)])
def test_throughput_of_nothing_is_refused(make_linear: Make, callers: int, runs: int) -> None:
    with load_isolated(make_linear(), fake()) as session:
        session.put(0, ROW)
        with pytest.raises(EngineRunError, match="Nothing to run"):
            session.throughput_rps([0], callers=callers, runs=runs)


def test_each_of_the_runs_is_done_once_by_some_caller() -> None:
    class Counting:
        def __init__(self) -> None:
            self.seen: list[tuple[int, int]] = []

        def run(self, inputs: Any) -> Any:
            self.seen.append((threading.get_ident(), int(inputs["x"][0])))

    session = Counting()
    samples = [{"x": np.array([n])} for n in range(3)]
    assert race(session, samples, callers=4, runs=300) > 0  # pyright: ignore[reportArgumentType]
    assert Counter(n for _, n in session.seen) == {0: 100, 1: 100, 2: 100}
    assert threading.get_ident() not in {who for who, _ in session.seen}


def test_samples_larger_than_a_pipe_are_carried_and_timed(make_linear: Make) -> None:
    x = np.ones((300_000, 4), np.float32)
    with load_isolated(make_linear(), fake()) as session:
        session.put(0, {"x": x})
        assert len(session.time_ms([0])) == 1
        assert session.run({"x": x})["y"].shape == (300_000, 3)


def test_every_element_type_crosses_both_ways_unchanged(tmp_path: Path) -> None:
    with IsolatedSession(Target(engine="onnxruntime", threads=1)) as session:
        for dtype in get_args(DType):
            session.load(copy_of("onnxruntime", tmp_path, dtype), 60)
            sample = sample_of(dtype)
            for x in (sample, sample[:0], np.repeat(sample, 5000, axis=0), sample[::-1]):
                y = session.run({"x": x})["y"]
                assert (y.dtype, y.shape) == (x.dtype, x.shape), dtype
                np.testing.assert_array_equal(y, x)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores are pinned on Linux only")
@pytest.mark.parametrize(("pin", "pinned"), [(True, 1), (False, None)])
def test_the_calling_thread_stays_on_the_core_that_the_session_names(
    make_linear: Make, pin: bool, pinned: int | None
) -> None:
    usable = len(os.sched_getaffinity(0))
    if usable < 2:
        assert cores_for(2) == []
        return
    with load_isolated(make_linear(), Target(engine="onnxruntime", threads=2, pin=pin)) as session:
        assert len(os.sched_getaffinity(session.pid)) == (pinned or usable)


def test_a_worker_tells_the_processor_time_that_its_runs_took(make_linear: Make) -> None:
    with load_isolated(make_linear(), Target(engine="onnxruntime")) as session:
        before = session.cpu_s()
        session.put(0, {"x": np.ones((1, 4), np.float32)})
        session.time_ms([0] * 50)
        assert session.cpu_s() > before > 0
