"""All connections of a server: who may come in, what time it is, whose time is up, and how they end."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Callable
from typing import Protocol

from hasten.errors import RequestError
from hasten.serve.http.connection import Connection
from hasten.serve.http.limits import HttpLimits
from hasten.serve.http.message import Handler, HttpRequest
from hasten.serve.http.reader import ROOM
from hasten.serve.unread import Unread

__all__ = ["Application", "Hub"]

# How often connections are looked at: times that run out are noticed this much too early at most, and never late.
_SWEEP_S = 0.25


class Application(Protocol):
    """What answers requests."""

    def open(self, request: HttpRequest) -> Handler:
        """Return who answers, by the header alone: the body has not arrived. Raises `RequestError`."""
        ...

    def reopen(self, request: HttpRequest) -> Handler:
        """Return who answers a request with the header of an earlier one of its connection, whose route and caller it
        has. Raises `RequestError`.
        """
        ...

    def turn_away(self, request: HttpRequest, beginning: bytes | memoryview) -> Handler | None:
        """Return who refuses a request of whose long body this is there, None where it may be taken."""
        ...


class Hub:
    """What the connections of one server share. `now` is a clock that moves with each sweep, which is enough for
    deadlines and costs a request nothing. `body_limit` in bytes; `buffered` counts bodies that are held, `unread` the
    bytes of answers that clients have not read. `refused` is told of each request that is refused at once. `room` is
    where those read whose clients send long bodies.
    """

    def __init__(
        self,
        application: Application,
        body_limit: int,
        limits: HttpLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        refused: Callable[[HttpRequest, RequestError], None] | None = None,
        unread: Unread | None = None,
    ) -> None:
        self.application = application
        self.body_limit = body_limit
        self.limits = limits or HttpLimits()
        self.refused = refused or _nobody
        self.unread = unread or Unread()
        self.draining = False
        self.room = memoryview(bytearray(ROOM))
        self.buffered = 0
        self.date = ""
        self._clock = clock
        self._connections: set[Connection] = set()
        self._empty: asyncio.Event | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.now = clock()
        self.sweep()

    def __len__(self) -> int:
        return len(self._connections)

    def connection(self) -> Connection:
        """Make the protocol of a new connection."""
        return Connection(self)

    def enter(self, connection: Connection) -> bool:
        """Count a connection in; False where there are too many."""
        self._connections.add(connection)
        return len(self._connections) <= self.limits.connections

    def leave(self, connection: Connection) -> None:
        """Count a connection out."""
        self._connections.discard(connection)
        if not self._connections and self._empty is not None:
            self._empty.set()

    def sweep(self) -> None:
        """Look at the clock and at every connection."""
        self.now = self._clock()
        self.date = f"date: {email.utils.formatdate(usegmt=True)}\r\n"
        for connection in tuple(self._connections):
            connection.sweep(self.now)

    def start(self) -> None:
        """Sweep regularly, on the running loop, until `stop`."""
        self.sweep()
        self._timer = asyncio.get_running_loop().call_later(_SWEEP_S, self.start)

    def stop(self) -> None:
        """End the sweeping, and whatever connection is left."""
        if self._timer is not None:
            self._timer.cancel()
        for connection in tuple(self._connections):
            connection.abort()

    async def finish(self) -> None:
        """Close each connection as soon as it is done with what it is at, and return when none is left."""
        self.draining = True
        for connection in tuple(self._connections):
            connection.finish()
        if self._connections:
            self._empty = asyncio.Event()
            await self._empty.wait()


def _nobody(request: HttpRequest, error: RequestError) -> None:
    """Nobody wants to know."""
