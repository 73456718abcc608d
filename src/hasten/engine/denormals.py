"""Subnormal numbers as zero, for the calling thread and only while a `with` lasts.

Runtimes switch the mode for the threads that they start. The thread that calls them computes too, and is theirs to
switch only once in a process (ONNX Runtime) or is left switched afterwards (OpenVINO). So it is done here: the mode
bits of the processor are a part of the floating-point environment, which the C library reads and writes for each
thread (`fegetenv`, `fesetenv` of C99).
"""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

__all__ = ["can_flush", "denormals"]

# Where the control word stands in `fenv_t`, in words of 32 bits, and its bits: on x86-64 MXCSR with flush-to-zero and
# denormals-are-zero; on Arm FPCR with FZ. Layouts of glibc and musl.
_PLACES = {"x86_64": (7, 0x8040), "aarch64": (0, 1 << 24)}
_WORDS = 64  # more than any layout has


def can_flush() -> bool:
    """Whether this system lets a thread be switched: Linux on x86-64 and 64-bit Arm."""
    return _library() is not None


@contextmanager
def denormals(flushed: bool) -> Generator[None]:
    """Compute with subnormal numbers as zero on this thread if `flushed`; restore the thread's own mode at the end.

    A mode that someone else switches inside ends there too. Costs about 3 µs. Where `can_flush` is False, nothing
    happens: whoever needs the mode asks before.
    """
    library = _library()
    if library is None:
        yield
        return
    before = (ctypes.c_uint32 * _WORDS)()
    library.fegetenv(before)
    if flushed:
        place, bits = _PLACES[platform.machine()]
        wanted = (ctypes.c_uint32 * _WORDS).from_buffer_copy(before)
        wanted[place] |= bits
        library.fesetenv(wanted)
    try:
        yield
    finally:
        library.fesetenv(before)


@functools.cache
def _library() -> Any:
    if sys.platform != "linux" or platform.machine() not in _PLACES:
        return None
    try:
        library = ctypes.CDLL("libm.so.6")
        return library if hasattr(library, "fesetenv") else None
    except OSError:
        pass
    # musl keeps the mathematics in the C library itself, which is loaded already.
    library = ctypes.CDLL(None)
    return library if hasattr(library, "fesetenv") else None
