"""Who goes first on a shared core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

from hasten.engine import precedence
from hasten.engine.precedence import step_back


@pytest.mark.skipif(not hasattr(os, "setpriority"), reason="this system has no niceness")
def test_a_process_that_steps_back_is_nicer_than_its_owner_and_so_is_what_it_starts() -> None:
    words = "import os, threading; input(); t = threading.Thread(target=lambda: print(os.getpriority(0, 0))); t.start()"
    with subprocess.Popen([sys.executable, "-c", words], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        step_back(process.pid, 3)
        said, _ = process.communicate(b"\n")
    assert int(said) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 3)


def test_whoever_is_gone_is_left_alone() -> None:
    step_back(2**22 + 1, 3)


# Slices of a thread before and after it wished to come first, of a thread and of a process that it started then; 0 is
# what a kernel tells that knows no wishes. sched_getattr is the number after sched_setattr.
SLICES = """
import ctypes, json, os, platform, threading
from hasten.engine import precedence

def slice_of(thread):
    told = precedence._Attributes()
    number = precedence._SCHED_SETATTR[platform.machine()] + 1
    ctypes.CDLL(None).syscall(number, thread, ctypes.byref(told), ctypes.sizeof(told), 0)
    return told.runtime

seen = [slice_of(0)]
precedence.come_first()
seen.append(slice_of(0))
thread = threading.Thread(target=lambda: seen.append(slice_of(0)))
thread.start()
thread.join()
reading, writing = os.pipe()
if not os.fork():
    os.write(writing, str(slice_of(0)).encode())
    os._exit(0)
seen.append(int(os.read(reading, 100)))
print(json.dumps([seen, os.getpriority(os.PRIO_PROCESS, 0)]))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine not in precedence._SCHED_SETATTR, reason="a wish that Linux grants"
)
def test_who_comes_first_has_short_slices_alone_and_stays_as_nice_as_it_was() -> None:
    command = ["nice", "-n", "3", sys.executable, "-c", textwrap.dedent(SLICES)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (before, after, thread, child), nice = json.loads(said)
    assert nice == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 3)
    if before == after:
        pytest.skip("this kernel grants no slices")
    assert after == precedence._SLICE_NS < before
    assert thread == child == before


def test_a_system_without_such_wishes_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precedence, "_SCHED_SETATTR", {})
    precedence.come_first()
