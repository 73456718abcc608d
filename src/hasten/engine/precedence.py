"""Who goes first on a core that a server and its engines share. Wishes to the operating system, which no privilege is
needed for; a system that does not know one of them goes on as if it had not been told.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys

__all__ = ["come_first", "step_back"]

# The number of sched_setattr by architecture (asm/unistd_64.h of x86, and asm-generic/unistd.h): Python has no name for
# it, and the C library only from glibc 2.41 on.
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
_RESET_ON_FORK = 1  # SCHED_FLAG_RESET_ON_FORK of linux/sched.h
# The shortest slice that Linux grants.
_SLICE_NS = 100_000


class _Attributes(ctypes.Structure):
    """`struct sched_attr` of linux/sched/types.h, in its first version."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def step_back(task: int, by: int) -> None:
    """Let a process (or on Linux a thread) that has just started, and the threads that it will start, leave a core to
    its owner when both want it: `by` levels of niceness, which nobody needs a privilege for. With nobody else on the
    core it runs as fast as ever. Systems without niceness leave it as it is.
    """
    if not by or not hasattr(os, "setpriority"):
        return
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, task, min(19, os.getpriority(os.PRIO_PROCESS, 0) + by))
    # Where Linux groups processes by session, only the group's niceness counts against another session's.
    with contextlib.suppress(OSError), open(f"/proc/{task}/autogroup", "w") as file:
        file.write(str(by))


def come_first() -> None:
    """Let this thread have its core as soon as it wakes, for whoever runs there gets it back soon: short slices, which
    Linux grants to whoever asks from 6.12 on, and lets interrupt longer ones. Without them a thread that wakes may wait
    for the end of another's slice, some milliseconds. Threads and processes that it starts have usual slices.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if sys.platform != "linux" or number is None or os.sched_getscheduler(0) & 0xFF != os.SCHED_OTHER:
        # Whoever chose another policy knows better.
        return
    wish = _Attributes(
        size=ctypes.sizeof(_Attributes),
        policy=os.SCHED_OTHER,
        flags=_RESET_ON_FORK,
        nice=os.getpriority(os.PRIO_PROCESS, 0),
        runtime=_SLICE_NS,
    )
    # An answer of -1 is a refusal, by a container's rules for instance.
    ctypes.CDLL(None).syscall(number, 0, ctypes.byref(wish), 0)
