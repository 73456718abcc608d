"""Peak memory of the current process, as the operating system counts it."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

__all__ = ["peak_memory_mb"]


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
