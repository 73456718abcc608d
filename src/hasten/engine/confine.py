"""What an engine worker may do and take: limits that hold whatever native code does inside.

`WorkerLimits` is what a user chooses; `environment` is what a worker inherits; `confine` puts the rest in force inside
the worker, before any engine is imported. Nothing here is a sandbox against code that means harm: models that could run
code are refused before (`hasten.model`).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import sys
from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta

from hasten.spec.values import Value

__all__ = ["WorkerLimits", "confine", "environment", "follow", "ran_out_of_memory"]

OPEN_FILES = 4096
_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_F_SETSIG = 10  # linux/fcntl.h; Python names it from 3.13 on

# What runtimes, compilers and Python read. Anything else could be a secret of the service, which no model needs.
_INHERITED = re.compile(
    r"PATH|HOME|USER|LANG|LANGUAGE|LC_.*|TZ|TMPDIR|TEMP|TMP|SYSTEMROOT|VIRTUAL_ENV|XDG_.*|PYTHON.*|COVERAGE_.*"
    r"|LD_LIBRARY_PATH|LD_PRELOAD|DYLD_.*|MALLOC_.*|GLIBC_TUNABLES|NO_COLOR"
    r"|OMP_.*|KMP_.*|GOMP_.*|MKL_.*|OPENBLAS_.*|ONEDNN_.*|DNNL_.*|TBB_.*"
    r"|ORT_.*|OV_.*|OPENVINO_.*|TORCH.*|PYTORCH_.*|TRITON_CACHE_DIR|TF_.*|XNNPACK_.*|CUDA_.*|NVIDIA_.*|ROCR?_.*|HSA_.*|HIP_.*|ZE_.*|SYCL_.*"
    r"|CC|CXX|CPATH|C_INCLUDE_PATH|CPLUS_INCLUDE_PATH|LIBRARY_PATH"
)
# From glibc 2.35 on: 1 is madvise(MADV_HUGEPAGE), which never fails and takes nothing from a reserve. Other C libraries
# do not read it.
_HUGE_PAGES = "glibc.malloc.hugetlb"
_OUT_OF_MEMORY = re.compile(
    r"bad[ _]alloc|out of memory|(?:failed|can't|cannot|could not|unable) to allocate|can't allocate memory",
    re.IGNORECASE,
)


class WorkerLimits(Value, frozen=True):
    """Bounds of one engine process. `memory_mb` (MiB; 0: none) is all that it may allocate, libraries and buffers of
    the runtime included; `load_s` and `run_s` are how long loading and one batch may take before the process is ended;
    `nice` is how far it steps back for its owner where they share a core, None for as far as the owner thinks fit.
    """

    memory_mb: Annotated[int, Meta(ge=0, description="MiB that it may allocate, libraries included; 0: no bound.")] = 0
    load_s: Annotated[float, Meta(gt=0, description="Seconds for loading, and for each batch of warming up.")] = 300.0
    run_s: Annotated[float, Meta(gt=0, description="Seconds for one batch; then the process is ended.")] = 120.0
    nice: Annotated[
        Annotated[int, Meta(ge=0, le=19)] | None,
        Meta(
            description="How far engines step back for the server on cores that they share (0: not at all); by "
            "default 10 where their threads leave it no core of its own."
        ),
    ] = None


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The variables that a worker gets of those that this process has: what is known to be read by runtimes, and what
    `HASTEN_WORKER_ENV` names, separated by commas. Its heap asks for huge pages (docs/decisions/0037) where nobody has
    decided about them.
    """
    named = {name.strip() for name in inherited.get("HASTEN_WORKER_ENV", "").split(",")}
    given = {name: value for name, value in inherited.items() if _INHERITED.fullmatch(name) or name in named}
    tunables = given.get("GLIBC_TUNABLES", "")
    if _HUGE_PAGES not in tunables:
        given["GLIBC_TUNABLES"] = ":".join(filter(None, [tunables, f"{_HUGE_PAGES}=1"]))
    return given


def confine(memory_bytes: int) -> None:
    """Limit the current process: memory (0: none), no core dumps, few files, no new privileges. Where a system offers
    one of them not, the others hold.
    """
    import resource

    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        files = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if memory_bytes:
        # Data and not address space (RLIMIT_AS): since Linux 4.7 the former counts private memory that can be written,
        # which is what a model costs; runtimes reserve address space that they never touch, and map large libraries.
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def follow(lifeline: int) -> None:
    """End this process when the other end of a pipe closes, on Linux by the kernel itself, whatever the process does.

    Nobody writes into that pipe. Other systems have no such signal: there a worker ends when it asks for more work.
    (PR_SET_PDEATHSIG would not do: it follows the thread that started the process.)
    """
    if sys.platform != "linux":
        return
    import fcntl

    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had; runtimes have no type for it, only words."""
    return isinstance(error, MemoryError) or bool(_OUT_OF_MEMORY.search(str(error)))
