"""A transport without a socket: what a protocol writes is kept, and the test plays the other side."""

from __future__ import annotations

import asyncio

__all__ = ["FakeTransport"]


class FakeTransport(asyncio.Transport):
    """Joins itself to `protocol`. Bytes that are written lie in `written`; the other side sends with `receive`, and
    reads no more between `stall` and `catch_up`.
    """

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.protocol: asyncio.Protocol | asyncio.BufferedProtocol = protocol
        self.written = b""
        self.reading = True
        self.stalled = False
        self.unread = 0
        self.ended = False
        self.closed = False
        self.aborted = False
        protocol.connection_made(self)

    def receive(self, data: bytes) -> None:
        """The other side sends; nothing comes through after the end, or while reading is paused."""
        assert self.reading, "reading is paused: a real transport would keep the bytes"
        while data and not self.closed:
            if isinstance(self.protocol, asyncio.Protocol):
                self.protocol.data_received(data)
                return
            room = memoryview(self.protocol.get_buffer(len(data)))
            part, data = data[: len(room)], data[len(room) :]
            room[: len(part)] = part
            self.protocol.buffer_updated(len(part))

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """What comes next goes to another protocol."""
        assert isinstance(protocol, asyncio.Protocol | asyncio.BufferedProtocol)
        self.protocol = protocol

    def hang_up(self) -> None:
        """The other side is gone."""
        self.closed = True
        self.protocol.connection_lost(None)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep what the protocol says."""
        assert not self.ended and not self.closed, "nothing can be written any more"
        self.written += bytes(data)
        if self.stalled:
            self.unread += len(data)

    def get_write_buffer_size(self) -> int:
        """What the other side has not read."""
        return self.unread

    def stall(self) -> None:
        """The other side reads nothing from now on; the protocol hears of it."""
        self.stalled = True
        self.protocol.pause_writing()

    def catch_up(self) -> None:
        """The other side has read everything."""
        self.stalled, self.unread = False, 0
        self.protocol.resume_writing()

    def can_write_eof(self) -> bool:
        """As plain sockets can."""
        return True

    def write_eof(self) -> None:
        """The protocol says no more, and still listens."""
        self.ended = True

    def close(self) -> None:
        """Both directions end, after what was written."""
        self.closed = True

    def abort(self) -> None:
        """Both directions end at once."""
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        """Whether it ended."""
        return self.closed

    def pause_reading(self) -> None:
        """The other side has to wait."""
        self.reading = False

    def resume_reading(self) -> None:
        """The other side may go on."""
        self.reading = True
