"""How a process and its engine worker talk: frames in shared memory, and a word on a socket that one is there.

Each side writes into areas of its own and reads the other's. What goes over the socket has a fixed size: how many
bytes the frame takes, which area it lies in, and which one is free for the answer. So one call sends, one call
receives, and whoever waits for many workers waits for sockets. One frame at a time and way: what was read lies there
until the next frame is asked for, or, where the reader has areas to spare, for as long as somebody looks at it.
"""

from __future__ import annotations

import mmap
import select
import socket
import struct
import time
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from hasten.engine.area import Area
from hasten.engine.frames import Frame, Layout, read_frame
from hasten.errors import EngineCrashed

__all__ = ["Channel", "Closed"]

_WORD = struct.Struct("<QII")
# Bytes of a frame that are not worth lending: who reads it copies them in less time.
_SMALL = 64 * 2**10


class Closed(Exception):
    """The other side is gone."""


class Channel:
    """One end. `ours` are the areas that this side writes, `theirs` those that it reads. The last of `theirs` is
    written anew for each frame; the others are not while a view of what lies there lives, so that their frames last.
    """

    def __init__(self, end: socket.socket, ours: Sequence[Area], theirs: Sequence[Area]) -> None:
        self._socket = end
        self._ours = ours
        self._theirs = theirs
        # What is looked at, of all areas but the last: views of these keep them, as they keep what lies below.
        self._lent: list[tuple[weakref.ref[np.ndarray[Any, Any]], ...]] = [()] * (len(theirs) - 1)
        self._granted = 0
        self._word = b""
        end.setblocking(False)
        # Not select(), which knows no descriptor above 1023.
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)

    def fileno(self) -> int:
        """The descriptor that becomes readable when a frame is there, or the other side is gone."""
        return self._socket.fileno()

    def room(self, size: int) -> mmap.mmap:
        """Where the next frame that is sent will begin. Raises `MemoryError` where there is no room for it."""
        return self._ours[self._granted].room(size)

    def send(self, layout: Layout) -> None:
        """Write a frame and tell the other side. Raises `Closed`, or `MemoryError` where there is no room for it."""
        layout.write(self.room(layout.size))
        try:
            # Never blocks: one word waits at most, since each side answers before it is asked again.
            self._socket.send(_WORD.pack(layout.size, self._granted, self._free()))
        except OSError as error:
            raise Closed from error

    def receive(self) -> Frame | None:
        """Return the frame that has arrived, or None where it is not there yet.

        Raises `Closed`, or `EngineCrashed` where what arrived is no frame.
        """
        try:
            got = self._socket.recv(_WORD.size - len(self._word))
        except BlockingIOError:
            return None
        except OSError as error:
            raise Closed from error
        if not got:
            raise Closed
        self._word += got
        if len(self._word) < _WORD.size:
            return None
        size, place, self._granted = _WORD.unpack(self._word)
        self._word = b""
        try:
            self._ours[self._granted]
            frame = read_frame(self._theirs[place].view(size))
        except (OSError, ValueError, IndexError) as error:
            raise EngineCrashed(f"The engine worker sent a frame that cannot be read: {error}.") from error
        if size > _SMALL and place < len(self._lent):
            self._lent[place] = tuple([weakref.ref(array) for array in frame.tensors.values()])
            frame.lasts = True
        return frame

    def wait(self, timeout_s: float | None = None) -> Frame:
        """Wait for the next frame. Raises as `receive` does, and `TimeoutError`."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1e3
            if not self._poll.poll(left):
                raise TimeoutError
            frame = self.receive()
            if frame is not None:
                return frame

    def _free(self) -> int:
        """The area for the next answer."""
        for place, lent in enumerate(self._lent):
            if all(look() is None for look in lent):
                return place
        return len(self._lent)

    def close(self) -> None:
        """Close this end; the areas are their owner's to close. Safe to call twice."""
        self._socket.close()
