"""What a worker inherits and may take."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from hasten.engine.confine import environment, ran_out_of_memory
from hasten.engine.isolate import load_isolated
from hasten.errors import EngineError, EngineRunError
from hasten.spec.target import Target

Make = Callable[..., Path]
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
ROW = {"x": np.ones((1, 4), np.float32)}
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")


def fake(**options: str) -> Target:
    return Target(engine="fake", options=dict(options))


def test_secrets_stay_with_the_service() -> None:
    given = {"PATH": "p", "OMP_NUM_THREADS": "2", "LC_ALL": "C", "PYTHONPATH": "x", "LD_LIBRARY_PATH": "l"}
    secrets = {"AWS_SECRET_ACCESS_KEY": "s", "HF_TOKEN": "t", "HASTEN_TOKEN": "u", "DATABASE_URL": "v", "MYPATH": "w"}
    assert environment({**given, **secrets}) == {**given, **HUGE_PAGES}


def test_what_an_engine_needs_besides_can_be_named() -> None:
    given = {"PATH": "p", "MY_LICENSE": "1", "OTHER": "2", "HASTEN_WORKER_ENV": "MY_LICENSE, NOWHERE"}
    assert environment(given) == {"PATH": "p", "MY_LICENSE": "1", **HUGE_PAGES}


def test_the_heap_asks_for_huge_pages_unless_somebody_decided_about_them() -> None:
    assert environment({}) == HUGE_PAGES
    more = environment({"GLIBC_TUNABLES": "glibc.malloc.arena_max=1"})
    assert more == {"GLIBC_TUNABLES": "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1"}
    refused = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}
    assert environment(refused) == refused


@linux
def test_a_worker_dumps_no_core_opens_few_files_and_gains_no_privileges(
    make_linear: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_SECRET", "s")
    with load_isolated(make_linear(), fake()) as session:
        process = psutil.Process(session.pid)
        assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        assert process.rlimit(psutil.RLIMIT_NOFILE)[1] <= 4096
        assert "NoNewPrivs:\t1" in Path(f"/proc/{session.pid}/status").read_text()
        assert "SOME_SECRET" not in process.environ()


@linux
def test_a_batch_beyond_the_memory_limit_is_an_error_that_says_so(make_linear: Make) -> None:
    # 512 MiB of answers from 8 MiB of input.
    with load_isolated(make_linear(classes=256), fake(), memory_mb=400) as session:
        assert session.run(ROW)["y"].shape == (1, 256)
        with pytest.raises(EngineRunError) as caught:
            session.run({"x": np.ones((2**19, 4), np.float32)})
    assert caught.value.code == "out_of_memory"


@linux
def test_a_model_that_does_not_fit_at_all_is_an_engines_error(make_linear: Make) -> None:
    with pytest.raises(EngineError):
        load_isolated(make_linear(), fake(), memory_mb=40)


@pytest.mark.parametrize(
    "words",
    [
        "std::bad_alloc",
        "Failed to allocate memory for requested buffer of size 1073741824",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes",
        "CUDA out of memory",
    ],
)
def test_the_words_of_runtimes_that_had_no_memory_are_known(words: str) -> None:
    assert ran_out_of_memory(EngineRunError(words))
    assert not ran_out_of_memory(EngineRunError("indices element out of data bounds"))


HANGING = """
import sys
from pathlib import Path
import numpy as np
from hasten.engine.isolate import load_isolated
from hasten.errors import EngineCrashed
from hasten.spec.target import Target

session = load_isolated(Path(sys.argv[1]), Target(engine="fake", options={"hang": "run"}))
print(session.pid, flush=True)
session.run({"x": np.ones((1, 4), np.float32)})
"""


RESTING = """
import sys, time
from pathlib import Path
from hasten.engine.isolate import load_isolated
from hasten.spec.target import Target

session = load_isolated(Path(sys.argv[1]), Target(engine="fake"))
session.rest()
print(session.pid, flush=True)
time.sleep(60)
"""


@linux
@pytest.mark.parametrize("owning", [HANGING, RESTING], ids=["hangs", "rests"])
def test_a_worker_that_hangs_or_rests_ends_with_its_owner_and_leaves_nothing(make_linear: Make, owning: str) -> None:
    shared = set(os.listdir("/dev/shm"))
    command = [sys.executable, "-c", textwrap.dedent(owning), str(make_linear())]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout:
        worker = psutil.Process(int(owner.stdout.readline()))
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        worker.wait(timeout=5)
    assert set(os.listdir("/dev/shm")) <= shared
