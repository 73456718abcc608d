"""One HTTP/1.1 connection: requests answered in order, and nobody waits for ever.

Requests that a client sends ahead wait for their turn, one is answered at a time. There is no task and no future: a
request is a few callbacks. Times come from the hub, which looks at every connection some times a second.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, Any

from hasten.errors import RequestError
from hasten.serve.bugs import internal
from hasten.serve.http.exchange import Exchange
from hasten.serve.http.message import Cancel, refusal, render
from hasten.serve.http.reader import Phase, Reader
from hasten.serve.tls import peer_of
from hasten.wire.base import Encoded

if TYPE_CHECKING:
    from hasten.serve.http.hub import Hub

__all__ = ["Connection"]

# No request is arriving that has not been answered, or will be.
_BETWEEN = (Phase.IDLE, Phase.REST)


class _Measured(asyncio.BufferedProtocol):
    """A connection whose client sends long bodies, from the first of them to the next short request: it reads no more
    at a time than is to be copied, and a long body straight to where it stays. A short request costs more this way.
    """

    def __init__(self, connection: Connection, reader: Reader, room: memoryview) -> None:
        self._connection = connection
        self._reader = reader
        # Where all such connections read: what is read is taken before anybody else reads.
        self._room = room

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._connection.resume_writing()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._reader.room() if self._reader.straight else self._room

    def buffer_updated(self, nbytes: int) -> None:
        """So many went there."""
        reader = self._reader
        if reader.straight:
            reader.fill(nbytes)
            return
        if not reader.resume(self._room, nbytes):
            reader.feed(bytes(self._room[:nbytes]))
        if not reader.straight:
            self._connection.turn_back()


class Connection(asyncio.Protocol):
    """The protocol that asyncio drives; made by the hub. `Reader` is its incoming half."""

    # A compiled class lets go of nothing else.
    __deletable__ = ("_reader",)

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._limits = hub.limits
        self._reader = Reader(hub, self)
        self._transport: Any = None
        # The request that is being answered, and those that wait behind it.
        self._current: Exchange | None = None
        self._cancel: Cancel | None = None
        self._waiting: deque[Exchange] = deque()
        self._advancing = False
        self._body_wanted = False
        self._reading = True
        self._measured = False
        self._writable = True
        # What of this connection is in the hub's count of unread bytes.
        self._counted = 0
        self._idle_by = math.inf
        self._write_by = math.inf

    # What asyncio calls.

    def connection_made(self, transport: Any) -> None:
        """A client is there; one too many is told so and sent away."""
        self._transport = transport
        self._reader.peer = peer_of(transport)
        if self._hub.enter(self):
            return
        if len(self._hub) > 2 * self._limits.connections:
            transport.abort()
        else:
            self._reader.refuse(RequestError("Too many connections.", code="unavailable", retry_after_s=1.0))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone; what it waits for is given up."""
        self._hub.leave(self)
        self._hub.unread.bytes -= self._counted
        self._counted = 0
        self._forget()
        if self._current is not None:
            self._hub.buffered -= len(self._current.request.body)
            self._current = None
        if self._cancel is not None:
            self._cancel()
            self._cancel = None
        self._reader.part()
        del self._reader

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        self._reader.feed(data)

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self._writable = False
        self._write_by = self._hub.now + self._limits.stalled_s

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writable = True
        self._count()
        if not self._transport.is_closing():
            self._write_by = math.inf
            self._advance()

    # What the hub calls.

    def sweep(self, now: float) -> None:
        """Close where a time has run out."""
        if self._counted:
            self._count()
        if now >= self._write_by:
            self._transport.abort()
        elif now >= self._reader.deadline and self._reading:
            if self._reader.phase in (Phase.HEAD, Phase.BODY):
                self._reader.late()
            elif self._reader.phase is Phase.REST:
                self._reader.stop()
                self._hear_no_more()
            else:
                self._close()
        elif now >= self._idle_by and self._reader.phase is Phase.IDLE:
            # Whoever has begun to ask has the time that a request has.
            self._close()

    def finish(self) -> None:
        """Close at once where nothing is under way; else the hub's state closes it after the answer."""
        if self._reader.phase in _BETWEEN and self._current is None and not self._waiting:
            self._close()

    def abort(self) -> None:
        """Close without finishing anything."""
        self._transport.abort()

    # What the reader calls.

    def arrived(self, exchange: Exchange) -> None:
        """A request is complete: it is answered now or waits for its turn."""
        self._idle_by = math.inf
        self._body_wanted = False
        alone = self._current is None and not self._waiting
        if alone and self._writable and not self._advancing and not self._transport.is_closing():
            self._advancing = True
            self._start(exchange)
            self._advancing = False
            if self._current is None:
                # It was answered at once.
                self._advance()
            return
        self._waiting.append(exchange)
        self._advance()

    def body_wanted(self) -> None:
        """Ask for the body (RFC 9110 section 10.1.1), once the answers before it are out."""
        self._body_wanted = True
        self._ask_for_body()

    def upgrade_ignored(self) -> None:
        """No other protocol is spoken here: the request is answered as it is, and nothing after it is looked at."""
        self._hear_no_more()

    def _hear_no_more(self) -> None:
        """Close after the last request that has arrived."""
        last = self._waiting[-1] if self._waiting else self._current
        if last is not None:
            last.last = True
        elif not self._transport.is_closing():
            self._linger()

    def rest_over(self) -> None:
        """The next request may come."""
        if self._current is None and not self._waiting:
            self._idle_by = self._hub.now + self._limits.idle_s

    def long_expected(self) -> None:
        """Say where bytes go from now on."""
        if not self._measured and not self._transport.is_closing():
            self._measured = True
            self._transport.set_protocol(_Measured(self, self._reader, self._hub.room))

    def turn_back(self) -> None:
        """Let the transport find memory for them again."""
        if not self._transport.is_closing():
            self._measured = False
            self._transport.set_protocol(self)

    # Answering.

    def _advance(self) -> None:
        """Answer what waits, one by one. Called again from an answer that came at once, it leaves that to the loop."""
        if self._advancing:
            return
        self._advancing = True
        while self._waiting and self._current is None and self._writable and not self._transport.is_closing():
            self._start(self._waiting.popleft())
        self._advancing = False
        if self._reading != (len(self._waiting) < self._limits.pipelined) and not self._transport.is_closing():
            self._turn_reading()
        if self._current is None and not self._waiting:
            if self._body_wanted:
                self._ask_for_body()
            if self._reader.phase is Phase.IDLE:
                self._idle_by = self._hub.now + self._limits.idle_s

    def _ask_for_body(self) -> None:
        if self._current is None and not self._waiting:
            self._body_wanted = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _start(self, exchange: Exchange) -> None:
        self._current = exchange
        try:
            cancel = exchange.handler(exchange.request, self._reply)
        except RequestError as error:
            self._refuse(exchange, error)
        except Exception as error:
            # A bug of ours: the client gets the protocol's error, the log gets the traceback.
            if self._current is exchange:
                self._refuse(exchange, internal(error))
        else:
            if self._current is exchange:
                self._cancel = cancel

    def _refuse(self, exchange: Exchange, error: RequestError) -> None:
        self._hub.refused(exchange.request, error)
        self._reply(*refusal(error))

    def _reply(self, status: int, answer: Encoded) -> None:
        exchange = self._current
        assert exchange is not None, "one answer for each request"
        self._current = self._cancel = None
        request = exchange.request
        self._hub.buffered -= len(request.body)
        last = exchange.last or (self._hub.draining and not self._waiting and self._reader.phase in _BETWEEN)
        extra = f"{self._hub.date}x-request-id: {request.id}\r\n"
        if last:
            extra += "connection: close\r\n"
        elif request.old:
            extra += "connection: keep-alive\r\n"
        pieces = render(status, answer, extra, bodiless=request.method == "HEAD")
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        else:
            # By one call of the system: each wakes the client.
            self._transport.writelines(pieces)
        if not self._writable:
            self._count()
        if last:
            self._linger()
        else:
            self._advance()

    def _count(self) -> None:
        """Tell the hub how much waits for the client to read. What a socket takes at once is not counted."""
        waiting = 0 if self._writable else self._transport.get_write_buffer_size()
        self._hub.unread.bytes += waiting - self._counted
        self._counted = waiting

    # Ending.

    def _linger(self) -> None:
        """Close, but not on unread bytes: that would reset the connection, and the reset would take the answer with it
        (RFC 9112 section 9.6).
        """
        unread = self._reader.phase in (Phase.DEAF, Phase.REST)
        self._forget()
        if not unread or not self._transport.can_write_eof():
            self._close()
            return
        if not self._reading:
            self._turn_reading()
        self._transport.write_eof()
        self._reader.deadline = self._hub.now + self._limits.linger_s
        self._write_by = min(self._write_by, self._hub.now + self._limits.stalled_s)

    def _forget(self) -> None:
        """Drop what has arrived and is not being answered."""
        self._reader.stop()
        self._hub.buffered -= sum(len(exchange.request.body) for exchange in self._waiting)
        self._waiting.clear()
        self._idle_by = math.inf

    def _close(self) -> None:
        self._reader.stop()
        self._transport.close()
        # A client that reads nothing would keep what is left to write, and the connection with it.
        self._write_by = min(self._write_by, self._hub.now + self._limits.stalled_s)

    def _turn_reading(self) -> None:
        """Stop reading while too much waits, and read on afterwards; the pause does not count against the client."""
        self._reading = not self._reading
        if self._reading:
            self._transport.resume_reading()
            self._reader.restart_clock()
        else:
            self._transport.pause_reading()
