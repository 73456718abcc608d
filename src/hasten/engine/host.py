"""The machine as inference sees it: processor, instruction sets, cores, memory, versions.

Read from the operating system, never from a benchmark. Used as the circumstances of every measurement, and to decide
whether a bundle made elsewhere may serve here.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psutil

from hasten.spec.environment import Environment

__all__ = ["FEATURES", "cores_for", "environment", "has_dot_products", "pin_caller", "staying_on"]

# Instruction sets that inference kernels are compiled for, by their names in /proc/cpuinfo (x86 `flags`, Arm
# `Features`).
FEATURES = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8",
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip

_PACKAGES = ("hasten", "onnxruntime", "openvino", "ai-edge-litert", "torch", "onnx", "numpy")


@functools.cache
def environment() -> Environment:
    """Describe this machine. Cached: it does not change while a process lives."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return Environment(
        processor=info.get("model name") or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        features=tuple(feature for feature in FEATURES if feature in flags),
        cores_logical=_usable_cores(),
        cores_physical=min(psutil.cpu_count(logical=False) or _usable_cores(), _usable_cores()),
        memory_mb=psutil.virtual_memory().total // 2**20,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages={name: version for name in _PACKAGES if (version := _version(name))},
        virtual="hypervisor" in flags,
    )


def has_dot_products(host: Environment) -> bool:
    """Whether the processor sums products of 8-bit numbers in 32 bits, in one instruction."""
    return bool({"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"} & set(host.features))


def cores_for(threads: int) -> list[int]:
    """Return one core for each thread, the calling thread's first; empty where pinning makes no sense or is not
    offered.

    One thread is left to the scheduler, and so are more threads than cores.
    """
    if not hasattr(os, "sched_getaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    return cores[:threads] if 1 < threads <= len(cores) else []


@contextmanager
def staying_on(cores: set[int] | None) -> Generator[None]:
    """Keep the calling thread on `cores` while the block runs; None, or a system that cannot, leaves it alone."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin_caller(session: object, cores: set[int] | None) -> None:
    """Keep the calling thread on the core that a session names (`caller_core`), if it does: its engine counts on the
    caller to do a share of the work. Else on all `cores`, whatever another session wanted of it. After loading: a
    runtime's own threads would inherit the restriction.
    """
    if cores:
        os.sched_setaffinity(0, cores)
    core: int | None = getattr(session, "caller_core", None)
    if core is not None:
        os.sched_setaffinity(0, {core})


def _usable_cores() -> int:
    """Cores that this process may run on, which containers and taskset restrict."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text(errors="replace").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
