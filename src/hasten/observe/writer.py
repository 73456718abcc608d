"""Lines to a file or to standard error, from a thread of its own: neither a slow reader nor a full disk stops serving.

What cannot be written is counted and gone. A file that was moved away, as log rotation does, is opened anew under its
name.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

from hasten.errors import UsageError

__all__ = ["Writer"]

_STANDARD_ERROR = 2
_TOGETHER = 256


class Writer:
    """Writes lines in their order. `path` None is standard error; at most `capacity` lines wait.

    Raises `UsageError` where the file cannot be opened.
    """

    def __init__(self, path: Path | None, capacity: int = 10_000) -> None:
        self._path = path
        self._capacity = capacity
        self._lost: Counter[str] = Counter()
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._torn = False
        try:
            self._file = os.dup(_STANDARD_ERROR) if path is None else _open(path)
        except OSError as error:
            raise UsageError(
                f"The log {path or 'on standard error'} cannot be written: {error.strerror}.",
                remedy="Give another file with --log FILE.",
            ) from error
        self._thread = threading.Thread(target=self._run, name="hasten-log", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Take a line that ends in a line feed. Never blocks and never fails."""
        if self._lines.qsize() >= self._capacity:
            self._lost["slow"] += 1
        else:
            self._lines.put(line)

    def lost(self) -> dict[str, int]:
        """Lines that are gone, by reason: `slow` where too many waited, `error` where writing failed (a full disk)."""
        return {reason: self._lost[reason] for reason in ("slow", "error")}

    def close(self, within_s: float = 2.0) -> None:
        """Write what waits, for so long at most."""
        self._lines.put(None)
        self._thread.join(within_s)

    def _run(self) -> None:
        open_ = True
        while open_:
            lines = [self._lines.get()]
            while len(lines) < _TOGETHER and not self._lines.empty():
                lines.append(self._lines.get())
            open_ = None not in lines
            self._put([line for line in lines if line is not None])
        os.close(self._file)

    def _put(self, lines: list[bytes]) -> None:
        if not lines:
            return
        self._follow()
        # What a failure cut off is ended first, so that each record stands on a line of its own.
        data = memoryview((b"\n" if self._torn else b"") + b"".join(lines))
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            whole = bytes(data[:written]).count(b"\n") - (self._torn and written > 0)
            self._lost["error"] += len(lines) - whole
            self._torn = data[written - 1] != 0x0A if written else self._torn
        else:
            self._torn = False

    def _follow(self) -> None:
        if self._path is None:
            return
        with suppress(OSError):
            here = os.fstat(self._file)
            with suppress(FileNotFoundError):
                there = os.stat(self._path)
                if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                    return
            file, self._file = self._file, _open(self._path)
            os.close(file)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
