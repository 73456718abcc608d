"""One HTTP/1.1 connection: bytes to requests, answers in order, and nobody waits for ever.

llhttp (through httptools) parses, in its strict mode: it refuses bare line feeds, folded headers, two lengths, a length
beside a transfer coding. What it lets pass and RFC 9112 does not is refused here. Requests that a client sends ahead wait
for their turn, one is answered at a time. There is no task and no future: a request is a few callbacks. Times come from
the hub, which looks at every connection some times a second.
"""

from __future__ import annotations

import asyncio
import enum
import math
from collections import deque
from typing import TYPE_CHECKING, Any

import httptools

from hasten.errors import RequestError
from hasten.serve.http.message import Cancel, Handler, HttpRequest, refusal, render
from hasten.wire.base import Encoded, invalid

if TYPE_CHECKING:
    from hasten.serve.http.hub import Hub

__all__ = ["Connection"]

# A refused request with a body up to this size is read to its end, and the connection lives on.
_SWALLOWED = 64 * 2**10
_USUAL = (
    "host", "connection", "content-length", "content-type", "accept-encoding", "user-agent", "accept", "authorization",
    "inference-header-content-length",
)  # fmt: skip
# As most clients write them, so that a usual header costs no conversion.
_NAMES = {spelt.encode(): name for name in _USUAL for spelt in (name, name.title())}


class _Phase(enum.Enum):
    """What the next bytes are: of no request yet, of a header, of a body, or nothing that is looked at any more."""

    IDLE = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()
    DEAF = enum.auto()


class _Exchange:
    """A complete request and who answers it; `last` closes the connection afterwards."""

    __slots__ = ("handler", "last", "request")

    def __init__(self, request: HttpRequest, handler: Handler, last: bool) -> None:
        self.request = request
        self.handler = handler
        self.last = last


class Connection(asyncio.Protocol):
    """The protocol that asyncio drives; made by the hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._limits = hub.limits
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._phase = _Phase.IDLE
        # The request that is arriving.
        self._count = 0
        self._url = b""
        self._headers: dict[str, str] = {}
        self._head_size = 0
        self._request: HttpRequest | None = None
        self._handler: Handler | None = None
        self._version = ""
        self._parts: list[bytes] = []
        self._size = 0
        self._raw_size = 0
        self._chunks = 0
        self._wants_continue = False
        # The request that is being answered, and those that wait behind it.
        self._current: _Exchange | None = None
        self._cancel: Cancel | None = None
        self._waiting: deque[_Exchange] = deque()
        self._advancing = False
        self._reading = True
        self._writable = True
        self._receive_by = hub.now + self._limits.header_s
        self._idle_by = math.inf
        self._write_by = math.inf

    # What asyncio calls.

    def connection_made(self, transport: Any) -> None:
        """A client is there; one too many is told so and sent away."""
        self._transport = transport
        if not self._hub.enter(self):
            if len(self._hub) > 2 * self._limits.connections:
                transport.abort()
                return
            self._refuse(RequestError("Too many connections.", code="unavailable", retry_after_s=1.0))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone; what it waits for is given up."""
        self._phase = _Phase.DEAF
        self._hub.leave(self)
        self._forget()
        if self._current is not None:
            self._hub.buffered -= len(self._current.request.body)
            self._current = None
        if self._cancel is not None:
            self._cancel()
            self._cancel = None
        # Parser and connection know each other: without this only the garbage collector would part them.
        self._parser = None

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        if self._phase is _Phase.DEAF:
            return
        phase, count = self._phase, self._count
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._ignore_upgrade()
        except httptools.HttpParserCallbackError as error:
            self._refuse(_cause(error))
        except httptools.HttpParserError as error:
            self._refuse(invalid(f"This is not valid HTTP: {error}."))
        if self._phase is phase and self._count == count:
            self._count_unfinished(len(data))

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self._writable = False
        self._write_by = self._hub.now + self._limits.stalled_s

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._writable = True
        if not self._transport.is_closing():
            self._write_by = math.inf
            self._advance()

    # What the hub calls.

    def sweep(self, now: float) -> None:
        """Close where a time has run out."""
        if now >= self._write_by:
            self._transport.abort()
        elif now >= self._receive_by and self._reading:
            self._late()
        elif now >= self._idle_by:
            self._close()

    def finish(self) -> None:
        """Close at once where nothing is under way; else the hub's state closes it after the answer."""
        if self._phase is _Phase.IDLE and self._current is None and not self._waiting:
            self._close()

    def abort(self) -> None:
        """Close without finishing anything."""
        self._transport.abort()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._phase = _Phase.HEAD
        self._count += 1
        self._url = b""
        self._headers = {}
        self._head_size = 0
        self._receive_by = self._hub.now + self._limits.header_s
        self._idle_by = math.inf

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header line; after the body, a trailer, which nobody needs."""
        if self._phase is not _Phase.HEAD:
            return
        self._count_head(len(name) + len(value) + 4)
        key = _NAMES.get(name) or name.lower().decode("latin-1")
        text = value.decode("latin-1")
        # Repeated ones are joined, as RFC 9110 says, and fail where one is expected.
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        """Decide by the header alone, before any of the body is read."""
        headers, self._version = self._headers, self._parser.get_http_version()
        announced = _check_framing(headers, self._version)
        request = self._request = HttpRequest(self._parser.get_method().decode(), self._url, headers)
        self._phase = _Phase.BODY
        self._parts, self._size, self._raw_size, self._chunks = [], 0, 0, 0
        self._receive_by = self._hub.now + self._limits.body_s
        expects = headers.get("expect")
        try:
            if announced > self._hub.body_limit:
                raise _too_large(self._hub.body_limit)
            if expects is not None and expects.lower() != "100-continue":
                raise RequestError("Only 100-continue can be expected.", code="expectation_failed")
            self._handler = self._hub.application.open(request)
        except RequestError as error:
            if announced > _SWALLOWED or "transfer-encoding" in headers or expects is not None or error.code in _FATAL:
                raise
            self._handler = _refuser(error)
        if expects is not None and (announced or "transfer-encoding" in headers):
            self._wants_continue = True
            self._continue()

    def on_chunk_header(self) -> None:
        """A chunk begins."""
        self._chunks += 1
        if self._chunks > self._limits.chunks:
            raise invalid(f"The body has more than {self._limits.chunks} chunks.")

    def on_body(self, part: bytes) -> None:
        """A part of the body."""
        self._parts.append(part)
        self._size += len(part)
        self._hub.buffered += len(part)
        if self._size > self._hub.body_limit:
            raise _too_large(self._hub.body_limit)
        if self._hub.buffered > self._limits.buffered_bytes:
            raise RequestError("Too many bodies are on their way.", code="unavailable", retry_after_s=1.0)

    def on_message_complete(self) -> None:
        """A request is complete: it is answered now or waits for its turn."""
        request, handler = self._request, self._handler
        assert request is not None and handler is not None
        parts = self._parts
        request.body = parts[0] if len(parts) == 1 else b"".join(parts)
        last = not self._parser.should_keep_alive()
        self._phase = _Phase.IDLE
        self._receive_by = math.inf
        self._request = self._handler = None
        self._parts, self._size, self._wants_continue = [], 0, False
        self._waiting.append(_Exchange(request, handler, last))
        self._advance()

    # Arriving.

    def _count_head(self, size: int) -> None:
        self._head_size += size
        if self._head_size > self._limits.header_bytes:
            raise RequestError(f"The header exceeds {self._limits.header_bytes} bytes.", code="headers_too_large")

    def _count_unfinished(self, size: int) -> None:
        """Bytes that went into a part of a request that has not ended yet, of which the parser tells nothing."""
        try:
            if self._phase is _Phase.HEAD:
                self._count_head(size)
            elif self._phase is _Phase.BODY:
                self._raw_size += size
                if self._raw_size - self._size > self._limits.framing_bytes:
                    raise invalid("The body is mostly chunk framing.")
        except RequestError as error:
            self._refuse(error)

    def _ignore_upgrade(self) -> None:
        """No other protocol is spoken here: the request is answered as it is, and nothing after it is looked at."""
        last = self._waiting[-1] if self._waiting else self._current
        self._phase = _Phase.DEAF
        if last is not None:
            last.last = True
        elif not self._transport.is_closing():
            self._linger()

    def _late(self) -> None:
        if self._phase is _Phase.DEAF or self._count == 0:
            self._close()
            return
        what = "header" if self._phase is _Phase.HEAD else "body"
        allowed = self._limits.header_s if self._phase is _Phase.HEAD else self._limits.body_s
        self._refuse(RequestError(f"The {what} did not arrive within {allowed:g} s.", code="request_timeout"))

    def _refuse(self, error: RequestError) -> None:
        """Answer with an error in its turn, and close."""
        self._phase = _Phase.DEAF
        self._receive_by = math.inf
        self._hub.buffered -= self._size
        self._parts, self._size, self._wants_continue = [], 0, False
        request = self._request or HttpRequest("", b"", {})
        self._waiting.append(_Exchange(request, _refuser(error), last=True))
        self._advance()

    def _continue(self) -> None:
        """Ask for the body (RFC 9110 section 10.1.1), once the answers before it are out."""
        if self._wants_continue and self._current is None and not self._waiting:
            self._wants_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

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
            if self._wants_continue:
                self._continue()
            if self._phase is _Phase.IDLE:
                self._idle_by = self._hub.now + self._limits.idle_s

    def _start(self, exchange: _Exchange) -> None:
        self._current = exchange
        try:
            cancel = exchange.handler(exchange.request, self._reply)
        except RequestError as error:
            self._reply(*refusal(error))
        except Exception as error:
            # A bug of ours: the client gets the protocol's error, the log gets the traceback.
            if self._current is exchange:
                self._reply(*refusal(internal(error)))
        else:
            if self._current is exchange:
                self._cancel = cancel

    def _reply(self, status: int, answer: Encoded) -> None:
        exchange = self._current
        assert exchange is not None, "one answer for each request"
        self._current = self._cancel = None
        request = exchange.request
        self._hub.buffered -= len(request.body)
        last = exchange.last or (self._hub.draining and not self._waiting and self._phase is _Phase.IDLE)
        extra = f"{self._hub.date}connection: close\r\n" if last else self._hub.date
        if self._version == "1.0" and not last:
            extra += "connection: keep-alive\r\n"
        for piece in render(status, answer, extra, bodiless=request.method == "HEAD"):
            self._transport.write(piece)
        if last:
            self._linger()
        else:
            self._advance()

    def _linger(self) -> None:
        """Close, but not on unread bytes: that would reset the connection, and the reset would take the answer with it
        (RFC 9112 section 9.6).
        """
        deaf, self._phase = self._phase is _Phase.DEAF, _Phase.DEAF
        self._forget()
        if not deaf or not self._transport.can_write_eof():
            self._close()
            return
        if not self._reading:
            self._turn_reading()
        self._transport.write_eof()
        self._receive_by = self._hub.now + self._limits.linger_s
        self._write_by = min(self._write_by, self._hub.now + self._limits.stalled_s)

    def _forget(self) -> None:
        """Drop what has arrived and is not being answered."""
        self._hub.buffered -= self._size + sum(len(exchange.request.body) for exchange in self._waiting)
        self._waiting.clear()
        self._parts, self._size = [], 0

    def _close(self) -> None:
        self._transport.close()
        self._receive_by = self._idle_by = math.inf
        # A client that reads nothing would keep what is left to write, and the connection with it.
        self._write_by = min(self._write_by, self._hub.now + self._limits.stalled_s)

    def _turn_reading(self) -> None:
        """Stop reading while too much waits, and read on afterwards; the pause does not count against the client."""
        self._reading = not self._reading
        if not self._reading:
            self._transport.pause_reading()
            return
        self._transport.resume_reading()
        if self._phase in (_Phase.HEAD, _Phase.BODY):
            self._receive_by = self._hub.now + self._limits.body_s


# After these the rest of the request is not worth reading.
_FATAL = ("too_large", "headers_too_large")


def _check_framing(headers: dict[str, str], version: str) -> int:
    """Return the length that is announced, 0 for none. Raises `RequestError` for what llhttp lets pass and RFC 9112 does
    not: another coding than chunked, HTTP of another kind, no or several Host, a body behind an upgrade.
    """
    if version not in ("1.1", "1.0"):
        raise invalid("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    coding = headers.get("transfer-encoding")
    if coding is not None and (coding.strip().lower() != "chunked" or version == "1.0"):
        raise invalid("The only transfer coding is chunked, and that in HTTP/1.1 only.")
    host = headers.get("host")
    if (host is None and version == "1.1") or (host is not None and "," in host):
        raise invalid("A request has one Host header.")
    announced = headers.get("content-length", "0").strip()
    if "upgrade" in headers and (coding is not None or announced != "0"):
        raise invalid("A request to upgrade has no body here.")
    # llhttp has seen to it that it is a number of at most 20 digits.
    return int(announced)


def _cause(error: httptools.HttpParserCallbackError) -> RequestError:
    """What one of our callbacks raised inside the parser."""
    cause = error.__context__
    return cause if isinstance(cause, RequestError) else internal(cause or error)


def _refuser(error: RequestError) -> Handler:
    return lambda _, reply: reply(*refusal(error))


def _too_large(limit: int) -> RequestError:
    return RequestError(f"The body exceeds {limit} bytes.", code="too_large")
