"""Memory that two processes share: an anonymous file that both have mapped.

It has no name anywhere, so nothing is left behind however a process ends. One side writes and makes it larger, the
other side reads and follows. It never gets smaller: touching memory that was cut off would kill the reader.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Self

import psutil

__all__ = ["Area"]

_SMALLEST = 64 * 1024


class Area:
    """A growing piece of shared memory. Arrays over an old mapping keep it until they are gone themselves."""

    def __init__(self, fd: int) -> None:
        """Take over the descriptor of an area that another process created."""
        self.fd = fd
        self._map: mmap.mmap | None = None
        self._size = 0

    @classmethod
    def create(cls) -> Area:
        """Make a new, empty area."""
        return cls(_anonymous_file())

    def room(self, size: int) -> mmap.mmap:
        """Return memory of at least `size` bytes to write into, growing where needed. Raises `MemoryError`."""
        if self._map is None or size > self._size:
            # By doubling, so that batches of slowly growing size do not map anew each time.
            wanted = _SMALLEST
            while wanted < size:
                wanted *= 2
            # Linux itself would rather end other processes than refuse.
            if wanted - self._size > psutil.virtual_memory().available // 2:
                raise MemoryError(f"{size} bytes are more than half of the memory that is left")
            try:
                self._extend(wanted)
                return self._mapped(wanted)
            except OSError as error:
                raise MemoryError(f"no shared memory for {wanted} bytes: {error.strerror}") from error
        return self._map

    def view(self, size: int) -> mmap.mmap:
        """Return the memory, where the other side has written `size` bytes. Raises `ValueError` if it is not there."""
        if self._map is None or size > self._size:
            there = os.fstat(self.fd).st_size
            if not 0 < size <= there:
                raise ValueError(f"{size} bytes were announced, and {there} are there")
            return self._mapped(there)
        return self._map

    def close(self) -> None:
        """Give back the descriptor. The memory goes with the last array over it."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd, self._map, self._size = -1, None, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _extend(self, size: int) -> None:
        if hasattr(os, "posix_fallocate"):
            # Reserved now: memory that runs out later would be a signal (SIGBUS) instead of an error.
            os.posix_fallocate(self.fd, 0, size)
        else:
            os.ftruncate(self.fd, size)

    def _mapped(self, size: int) -> mmap.mmap:
        self._map = mmap.mmap(self.fd, size)
        self._size = size
        return self._map


def _anonymous_file() -> int:
    if not hasattr(os, "memfd_create"):
        # A file that is deleted at once: as anonymous, though its pages may reach the disk.
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    import fcntl

    fd = os.memfd_create("hasten", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd
