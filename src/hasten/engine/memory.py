"""Memory of the current process: its peak, as the operating system counts it, and what its allocator keeps."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
from pathlib import Path

__all__ = ["keep_freed_memory", "peak_memory_mb"]

# Names of mallopt(3), and the largest threshold that glibc takes on 64-bit systems.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 32 * 2**20


def keep_freed_memory(size: int) -> None:
    """Let glibc's allocator keep up to `size` bytes that are free instead of giving them back at once. A server that
    moves large tensors would get the same pages again with every request, and the kernel would clear them each time.
    On other systems nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    # Other C libraries have no such function.
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        mallopt(_M_TRIM_THRESHOLD, size)


def peak_memory_mb() -> float:
    """Return the peak resident set in MiB.

    Linux: `VmHWM` of /proc/self/status, because `ru_maxrss` there survives exec and would report the parent's peak.
    Elsewhere: `getrusage`, in bytes on macOS and in KiB on other systems.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024
