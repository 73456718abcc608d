"""How a process and its engine worker talk: frames in shared memory, and a word on a socket that one is there.

Each side writes into an area of its own and reads the other's. What goes over the socket has a fixed size: how many
bytes the frame takes. So one call sends, one call receives, and whoever waits for many workers waits for sockets. One
frame at a time and way: what was read lies there until the next frame is asked for.
"""

from __future__ import annotations

import select
import socket
import struct
import time

from hasten.engine.area import Area
from hasten.engine.frames import Frame, Layout, read_frame
from hasten.errors import EngineCrashed

__all__ = ["Channel", "Closed"]

_WORD = struct.Struct("<Q")


class Closed(Exception):
    """The other side is gone."""


class Channel:
    """One end. `ours` is the area that this side writes, `theirs` the one that it reads."""

    def __init__(self, end: socket.socket, ours: Area, theirs: Area) -> None:
        self._socket = end
        self._ours = ours
        self._theirs = theirs
        self._word = b""
        end.setblocking(False)
        # Not select(), which knows no descriptor above 1023.
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)

    def fileno(self) -> int:
        """The descriptor that becomes readable when a frame is there, or the other side is gone."""
        return self._socket.fileno()

    def send(self, layout: Layout) -> None:
        """Write a frame and tell the other side. Raises `Closed`, or `MemoryError` where there is no room for it."""
        layout.write(self._ours.room(layout.size))
        try:
            # Never blocks: one word waits at most, since each side answers before it is asked again.
            self._socket.send(_WORD.pack(layout.size))
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
        (size,) = _WORD.unpack(self._word)
        self._word = b""
        try:
            return read_frame(self._theirs.view(size))
        except (OSError, ValueError) as error:
            raise EngineCrashed(f"The engine worker sent a frame that cannot be read: {error}.") from error

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

    def close(self) -> None:
        """Close this end; the areas are their owner's to close. Safe to call twice."""
        self._socket.close()
