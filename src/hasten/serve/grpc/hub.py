"""What all gRPC connections share: the methods, the limits, the count of clients and bytes, and the clock that ends
what takes too long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import ngh2

from hasten.errors import RequestError
from hasten.serve.access import Operation
from hasten.serve.grpc.call import Call, Method
from hasten.serve.grpc.connection import Connection
from hasten.serve.grpc.headers import Opening
from hasten.serve.grpc.limits import GrpcLimits
from hasten.serve.guard import Guard
from hasten.serve.unread import Unread
from hasten.wire.known import Memory

__all__ = ["Hub"]

_SWEEP_S = 1.0
_CROSSING_S = 0.1
_MEMORABLE = 2048
# Bytes that are read at a time: as many as a processor's cache holds beside other things.
_ROOM = 128 * 1024
# Of a connection (RFC 9113 section 6.9.1).
_MOST_WINDOW = 2**31 - 1

Fields = tuple[tuple[bytes, bytes], ...]


class Hub:
    """Makes connections for a server on the running event loop. `methods` by path; `message_limit` in bytes; `unread`
    counts the bytes of answers that clients have not read; `on_sweep` is called about once a
    second, `refused` with each call that gets an error without having been queued.
    """

    def __init__(
        self,
        methods: Mapping[bytes, Method],
        message_limit: int,
        limits: GrpcLimits | None = None,
        guard: Guard | None = None,
        on_sweep: Callable[[], None] | None = None,
        refused: Callable[[Call, RequestError], None] | None = None,
        unread: Unread | None = None,
    ) -> None:
        self.limits = limits = limits or GrpcLimits()
        self.message_limit = message_limit
        self.acknowledge_at = limits.window // 2
        # Streams have windows of their own, and all clients together a bound for what is unfinished. The window that
        # they share must never run out: with parts of many messages in it, none would ever be whole. Twice all streams,
        # because libnghttp2 tells of what was read when that is half of a window.
        self._line_window = min(2 * limits.streams * limits.window, _MOST_WINDOW)
        self.guard = guard or Guard()
        self.refused = refused or _nobody
        self.draining = False
        self.unread = unread or Unread()
        # All connections read into the same memory, one after the other.
        self.room = memoryview(bytearray(_ROOM))
        # Clients send the same headers with every call.
        self.known: Memory[Fields, Opening] = Memory()
        self._methods = methods
        self._on_sweep = on_sweep
        self._connections: set[Connection] = set()
        self._buffered = 0
        self._changed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._config = ngh2.Configuration(
            auto_window_update=False,
            stream_reset_rate_limit=limits.resets,
            # Names and values, and 32 bytes for each field (RFC 9113 section 6.5.2); what is a little too long gets an
            # answer, what is much too long ends the connection.
            max_inbound_header_list_size=4 * limits.metadata,
            max_inbound_header_count=256,
        )
        self._settings = {
            ngh2.Setting.MAX_CONCURRENT_STREAMS: limits.streams,
            ngh2.Setting.INITIAL_WINDOW_SIZE: limits.window,
            ngh2.Setting.MAX_FRAME_SIZE: limits.frame,
            ngh2.Setting.MAX_HEADER_LIST_SIZE: limits.metadata,
            ngh2.Setting.ENABLE_CONNECT_PROTOCOL: 0,
        }

    def __len__(self) -> int:
        return len(self._connections)

    def start(self) -> None:
        """Begin to watch the clock."""
        self._timer = asyncio.get_running_loop().call_later(_SWEEP_S, self._tick)

    def stop(self) -> None:
        """Close every connection at once."""
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._connections):
            connection.close()

    def connection(self) -> Connection:
        """Make a connection; for `create_server`."""
        return Connection(self)

    def new_http(self) -> ngh2.Connection:
        """Return the protocol state of a new connection, its greeting ready to be sent."""
        http = ngh2.Connection(ngh2.Role.SERVER, self._config)
        http.initiate_connection(self._settings)
        http.set_local_window_size(self._line_window)
        return http

    def admit(self, connection: Connection) -> bool:
        """Take a connection in, unless there are too many."""
        if len(self._connections) >= self.limits.connections:
            return False
        self._connections.add(connection)
        return True

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        self._changed.set()

    def method(self, path: bytes) -> Method:
        """Return the method at a path, or one that says that there is none."""
        return self._methods.get(path, _UNKNOWN)

    def remember(self, headers: Fields, opening: Opening) -> None:
        """Recognise good headers when they come again. Only a few, and none that are long: a client chooses them."""
        if sum([len(name) + len(value) for name, value in headers]) > _MEMORABLE:
            return
        self.known.keep(headers, opening)

    def hold(self, call: Call, size: int) -> bool:
        """Count so many bytes more that a call has unread; say as `account` does."""
        call.counted += size
        self._buffered += size
        return self._buffered <= self.limits.buffered

    def account(self, call: Call) -> bool:
        """Count what a call has unread, and say whether it may have it: all clients together have a bound."""
        waiting = call.reader.buffered
        self._buffered += waiting - call.counted
        call.counted = waiting
        return not waiting or self._buffered <= self.limits.buffered

    async def finish(self) -> None:
        """Tell every client to call here no more, and return when all calls are answered and connections closed."""
        self.draining = True
        for connection in list(self._connections):
            connection.say_goodbye()
        # Calls that cross the notice come within a round trip; after that, a connection without calls may go.
        await asyncio.sleep(_CROSSING_S)
        while self._connections:
            self._changed.clear()
            for connection in list(self._connections):
                connection.close_if_idle()
            if self._connections:
                await self._changed.wait()

    def idle(self) -> None:
        """A connection has answered its last call."""
        if self.draining:
            self._changed.set()

    def sweep(self, now: float) -> None:
        """Look at every connection at this time of the loop's clock."""
        for connection in list(self._connections):
            connection.sweep(now)
        if self._on_sweep is not None:
            self._on_sweep()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_SWEEP_S, self._tick)
        self.sweep(loop.time())


def _nobody(call: Call, error: RequestError) -> None:
    """Nobody wants to know."""


def _refuse(call: Call, message: bytes) -> None:
    raise RequestError("There is no such method.", code="method_not_allowed")


_UNKNOWN = Method(operation=Operation.LIVE, take=_refuse)
