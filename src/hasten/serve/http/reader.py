"""Bytes to requests, without a socket: what one client sends, checked and bounded as it arrives.

llhttp (through httptools) parses, in its strict mode: it refuses bare line feeds, folded headers, two lengths, a length
beside a transfer coding. What it lets pass and RFC 9112 does not is refused here. By its header alone a request finds
who answers it, or is refused before any of its body is read.

A client sends the same header again and again. Bytes that were parsed and found good are recognised when they come
again, with their whole body or the beginning of a long one, and cost one comparison; what may have changed since is
looked at anew each time.

The rest of a long body whose length is known is received straight to where it stays: the parser would have nothing to
say about it and copy it twice. Where its beginning is enough to refuse the request, that is done at once, and the rest
goes nowhere.
"""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Any, Protocol

import httptools
import numpy as np

from hasten.errors import RequestError
from hasten.serve.access import NOBODY
from hasten.serve.bugs import internal
from hasten.serve.http.exchange import Exchange
from hasten.serve.http.message import Handler, HttpRequest, Reply
from hasten.wire.base import invalid

if TYPE_CHECKING:
    from hasten.serve.http.hub import Hub

__all__ = ["ROOM", "Phase", "Reader", "Receiver"]

# A refused request with a body up to this size is read to its end, and the connection lives on.
_SWALLOWED = 64 * 2**10
# From how many bytes that are still to come a body is received straight.
_LONG = 32 * 2**10
# Bytes that are read at a time where a long body may follow: what of it is to be copied (0019).
ROOM = 32 * 2**10
# Where the rest of refused bodies goes, a piece at a time, whoever sends it: nobody reads it.
_NOWHERE = memoryview(bytearray(128 * 2**10))
# A header up to this size is remembered.
_MEMORABLE = 4 * 2**10
_USUAL = (
    "host", "connection", "content-length", "content-type", "accept-encoding", "user-agent", "accept", "authorization",
    "inference-header-content-length",
)  # fmt: skip
# As most clients write them, so that a usual header costs no conversion.
_NAMES = {spelt.encode(): name for name in _USUAL for spelt in (name, name.title())}


class Phase(enum.Enum):
    """What the next bytes are: of no request yet, of a header, of a body, of a body whose request has been refused, or
    nothing that is looked at any more.
    """

    IDLE = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()
    REST = enum.auto()
    DEAF = enum.auto()


class _Head:
    """The header of a request as it was parsed, its bytes, and what the application found by it; `total` counts the
    body of `size` bytes that it announces too. Of a long one the beginning is enough to be recognised.
    """

    __slots__ = ("caller", "headers", "is_long", "method", "raw", "route", "size", "target", "total")

    def __init__(self, request: HttpRequest, size: int) -> None:
        self.raw = b""
        self.method = request.method
        self.target = request.target
        self.headers = request.headers
        self.route = request.route
        self.caller = request.caller
        self.size = size
        self.is_long = size > _SWALLOWED
        self.total = 0


class Receiver(Protocol):
    """Who takes the requests."""

    def arrived(self, exchange: Exchange) -> None:
        """A request is complete, or refused: then it is the last one."""
        ...

    def body_wanted(self) -> None:
        """The client waits for a word before it sends the body."""
        ...

    def upgrade_ignored(self) -> None:
        """The client speaks something else from here on, after the request that has arrived just before."""
        ...

    def rest_over(self) -> None:
        """The rest of the body of a request that has arrived before, refused, has gone by."""
        ...

    def long_expected(self) -> None:
        """This client sends long bodies: ask where its bytes go from now on."""
        ...


class Reader:
    """The incoming half of a connection. `deadline` is when the request that is arriving is late."""

    def __init__(self, hub: Hub, receiver: Receiver) -> None:
        self._hub = hub
        self._limits = hub.limits
        self._receiver = receiver
        self.peer = NOBODY
        self._parser: Any = httptools.HttpRequestParser(self)
        self.phase = Phase.IDLE
        self.deadline = hub.now + self._limits.header_s
        self._count = 0
        self._url = b""
        self._headers: dict[str, str] = {}
        self._head_size = 0
        self._request: HttpRequest | None = None
        self._handler: Handler | None = None
        self._parts: list[bytes | memoryview] = []
        self._size = 0
        # The length of a body that may be received straight, and the body while it is.
        self._announced = 0
        self._body: memoryview | None = None
        # Whether the parser waits for that body, which it will never see.
        self._waits = False
        # Of a body that goes by: how many bytes are still to come.
        self._left = 0
        self._raw_size = 0
        self._chunks = 0
        self._error: RequestError | None = None
        # The header that has been read, where it is one to remember.
        self._plain: _Head | None = None
        self._head: _Head | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes; what they complete goes to the receiver."""
        phase, count, head = self.phase, self._count, self._head
        if (
            head is not None
            and len(data) == head.total
            and not head.is_long
            and phase is Phase.IDLE
            and data.startswith(head.raw)
        ):
            self._again(head, data)
            return
        if phase is Phase.DEAF:
            return
        try:
            self._parser.feed_data(data)
            if self.phase is Phase.BODY and self._announced - self._size >= _LONG:
                if phase is Phase.IDLE and self._count == count + 1 and self._plain:
                    self._remember(data, self._plain, self._size)
                self._waits = True
                self._go_straight()
            elif self._count == count:
                if self.phase is phase:
                    self._count_unfinished(len(data))
            elif phase is Phase.IDLE and self.phase is Phase.IDLE and self._count == count + 1 and self._plain:
                self._remember(data, self._plain, self._plain.size)
        except httptools.HttpParserUpgrade:
            self.phase = Phase.DEAF
            self._receiver.upgrade_ignored()
        except httptools.HttpParserCallbackError as error:
            # One of our callbacks raised inside the parser, which does not always tell what.
            self.refuse(self._error or internal(error))
        except httptools.HttpParserError as error:
            self.refuse(invalid(f"This is not valid HTTP: {error}."))
        except RequestError as error:
            self.refuse(error)

    def resume(self, room: memoryview, count: int) -> bool:
        """Take so many bytes from where others read, too, if they are a header that is remembered and the beginning of
        its long body. False for anything else: `feed` takes that. Whoever sends such a body and is refused by the
        header loses the connection; a shorter one would be read to its end.
        """
        head = self._head
        if head is None or not head.is_long or head.total - count < _LONG or self.phase is not Phase.IDLE:
            return False
        begins = len(head.raw)
        # Behind these bytes lie others, which came before and perhaps from somebody else.
        if count < begins or bytes(room[:begins]) != head.raw:
            return False
        self._begin_again(head, room[begins:count])
        return True

    def _remember(self, data: bytes, head: _Head, came: int) -> None:
        """Keep the header of a request of which `came` bytes of body are there, if these begin where it ends."""
        end = len(data) - came
        if end <= _MEMORABLE and data.find(b"\r\n\r\n") + 4 == end:
            head.raw, head.total = data[:end], end + head.size
            self._head = head

    def _again(self, head: _Head, data: bytes) -> None:
        """The remembered header has come once more, with its body and nothing else."""
        request = HttpRequest(head.method, head.target, head.headers)
        request.route, request.caller = head.route, head.caller
        try:
            handler = self._hub.application.reopen(request)
        except RequestError as error:
            handler = _refuser(error)
        except Exception as error:
            self._request = request
            self.refuse(internal(error))
            return
        if self._hub.buffered + head.size > self._limits.buffered_bytes:
            self._request = request
            self.refuse(_too_many())
            return
        self._hub.buffered += head.size
        request.body = data[len(head.raw) :]
        self._receiver.arrived(Exchange(request, handler, last=False))

    def _begin_again(self, head: _Head, beginning: memoryview) -> None:
        """The remembered header has come once more, with the beginning of its long body and nothing else."""
        request = self._request = HttpRequest(head.method, head.target, head.headers)
        request.route, request.caller = head.route, head.caller
        try:
            if head.size > self._hub.body_limit:
                raise _too_large(self._hub.body_limit)
            self._handler = self._hub.application.reopen(request)
        except Exception as error:
            self.refuse(error if isinstance(error, RequestError) else internal(error))
            return
        self.phase = Phase.BODY
        self.deadline = self._hub.now + self._limits.body_s
        parts: list[bytes | memoryview] = [beginning]
        self._parts, self._size, self._announced = parts, len(beginning), head.size
        self._hub.buffered += len(beginning)
        if self._hub.buffered > self._limits.buffered_bytes:
            self.refuse(_too_many())
        else:
            self._go_straight()

    def _go_straight(self) -> None:
        """Receive what is left of a body without the parser, or let it go by where the request is refused already."""
        request = self._request
        assert request is not None
        try:
            beginning = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            refuser = self._hub.application.turn_away(request, beginning)
        except Exception as error:
            self.refuse(error if isinstance(error, RequestError) else internal(error))
            return
        if refuser is not None:
            self._let_go_by(request, refuser)
            return
        # Not a bytearray, which would be filled with zeros first.
        body = self._body = np.empty(self._announced, np.uint8).data
        at = 0
        for part in self._parts:
            body[at : at + len(part)] = part
            at += len(part)
        self._parts = []
        self._receiver.long_expected()

    def _let_go_by(self, request: HttpRequest, refuser: Handler) -> None:
        self._hub.buffered -= self._size
        self._left, lasts = self._announced - self._size, self._lasts()
        self._restart(Phase.REST)
        self._receiver.long_expected()
        self._receiver.arrived(Exchange(request, refuser, last=not lasts))

    @property
    def straight(self) -> bool:
        """Whether bytes go to `room`, and `fill` hears of them; otherwise `feed` takes them."""
        return self._body is not None or self.phase is Phase.REST

    def room(self) -> memoryview:
        """Where the next bytes of the body go: as many as are missing, and no more."""
        if self._body is None:
            return _NOWHERE[: self._left]
        return self._body[self._size :]

    def fill(self, count: int) -> None:
        """So many bytes have gone there."""
        body = self._body
        if body is None:
            self._pass_by(count)
            return
        self._size += count
        self._hub.buffered += count
        if self._hub.buffered > self._limits.buffered_bytes:
            self.refuse(_too_many())
        elif self._size == len(body):
            lasts = self._lasts()
            self._renew()
            self._body = None
            self._complete(body.toreadonly(), last=not lasts)

    def _pass_by(self, count: int) -> None:
        """So many bytes that nobody wants have come."""
        self._left -= count
        if not self._left and self.phase is Phase.REST:
            self._renew()
            self._restart(Phase.IDLE)
            self._receiver.rest_over()

    def _lasts(self) -> bool:
        """Whether the connection lasts after a request whose body the parser does not see. It does after what was
        recognised.
        """
        return not self._waits or self._parser.should_keep_alive()

    def _renew(self) -> None:
        """Have a parser that waits for no body."""
        if self._waits:
            self._waits = False
            self._parser = httptools.HttpRequestParser(self)

    def late(self) -> None:
        """The deadline has passed: say so where a request has begun."""
        head = self.phase is Phase.HEAD
        what, allowed = ("header", self._limits.header_s) if head else ("body", self._limits.body_s)
        self.refuse(RequestError(f"The {what} did not arrive within {allowed:g} s.", code="request_timeout"))

    def refuse(self, error: RequestError) -> None:
        """Answer with an error in its turn, and look at nothing more."""
        request = self._request or HttpRequest("", b"", {})
        self.stop()
        self._receiver.arrived(Exchange(request, _refuser(error), last=True))

    def stop(self) -> None:
        """Look at nothing more, and drop what has arrived of a request."""
        self.phase = Phase.DEAF
        self.deadline = math.inf
        self._hub.buffered -= self._size
        self._parts, self._size, self._announced = [], 0, 0
        self._body = None

    def part(self) -> None:
        """Let go of the parser: the two know each other, and only the garbage collector would part them."""
        self._parser = None

    def restart_clock(self) -> None:
        """Give what is arriving its full time again."""
        if self.phase in (Phase.HEAD, Phase.BODY, Phase.REST):
            self.deadline = self._hub.now + self._limits.body_s

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self.phase = Phase.HEAD
        self._count += 1
        self._url = b""
        self._headers = {}
        self._head_size = 0
        self._request = None
        self.deadline = self._hub.now + self._limits.header_s

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header line; after the body, a trailer, which nobody needs."""
        if self.phase is not Phase.HEAD:
            return
        self._count_head(len(name) + len(value) + 4)
        key = _NAMES.get(name) or name.lower().decode("latin-1")
        text = value.decode("latin-1")
        # Repeated ones are joined, as RFC 9110 says, and fail where one is expected.
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        """Decide by the header alone, before any of the body is read."""
        try:
            self._open()
        except RequestError as error:
            raise self._noted(error) from None

    def _open(self) -> None:
        headers, version = self._headers, self._parser.get_http_version()
        request = self._request = HttpRequest(self._parser.get_method().decode(), self._url, headers)
        request.caller = self.peer
        request.old = version == "1.0"
        announced = _check_framing(headers, version)
        self.phase = Phase.BODY
        self._parts, self._size, self._raw_size, self._chunks = [], 0, 0, 0
        self.deadline = self._hub.now + self._limits.body_s
        expects, open_ended = headers.get("expect"), "transfer-encoding" in headers
        plain = not (request.old or open_ended or _changes_connection(headers))
        self._plain = None
        self._announced = 0 if open_ended else announced
        if announced > self._hub.body_limit:
            raise _too_large(self._hub.body_limit)
        try:
            if expects is not None and expects.lower() != "100-continue":
                raise RequestError("Only 100-continue can be expected.", code="expectation_failed")
            self._handler = self._hub.application.open(request)
            self._plain = _Head(request, announced) if plain else None
        except RequestError as error:
            if announced > _SWALLOWED or open_ended or expects is not None:
                raise
            self._handler = _refuser(error)
            # It goes through the parser: there is nothing more to be asked about it, and nobody wants it.
            self._announced = 0
        if expects is not None and (announced or open_ended):
            self._receiver.body_wanted()

    def on_chunk_header(self) -> None:
        """A chunk begins."""
        self._chunks += 1
        if self._chunks > self._limits.chunks:
            raise self._noted(invalid(f"The body has more than {self._limits.chunks} chunks."))

    def on_body(self, part: bytes) -> None:
        """A part of the body."""
        self._parts.append(part)
        self._size += len(part)
        self._hub.buffered += len(part)
        if self._size > self._hub.body_limit:
            raise self._noted(_too_large(self._hub.body_limit))
        if self._hub.buffered > self._limits.buffered_bytes:
            raise self._noted(_too_many())

    def on_message_complete(self) -> None:
        """A request is complete."""
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._complete(body, last=not self._parser.should_keep_alive())

    def _complete(self, body: bytes | memoryview, *, last: bool) -> None:
        request, handler = self._request, self._handler
        assert request is not None and handler is not None
        request.body = body
        if self._announced >= _LONG + ROOM:
            # It may have come whole, and was copied then: the next one need not be.
            self._receiver.long_expected()
        self._restart(Phase.IDLE)
        self._receiver.arrived(Exchange(request, handler, last))

    def _restart(self, phase: Phase) -> None:
        """A request has been handed over. The rest of its body has the time that the whole was given."""
        self.phase = phase
        if phase is Phase.IDLE:
            self.deadline = math.inf
        self._request = self._handler = None
        self._parts, self._size = [], 0

    def _noted(self, error: RequestError) -> RequestError:
        """Keep an error that is about to be raised through the parser."""
        self._error = error
        return error

    def _count_head(self, size: int) -> None:
        self._head_size += size
        if self._head_size > self._limits.header_bytes:
            words = f"The header exceeds {self._limits.header_bytes} bytes."
            raise self._noted(RequestError(words, code="headers_too_large"))

    def _count_unfinished(self, size: int) -> None:
        """Bytes that went into a part of a request that has not ended yet, of which the parser tells nothing."""
        if self.phase is Phase.HEAD:
            self._count_head(size)
        elif self.phase is Phase.BODY:
            self._raw_size += size
            if self._raw_size - self._size > self._limits.framing_bytes:
                raise invalid("The body is mostly chunk framing.")


def _check_framing(headers: dict[str, str], version: str) -> int:
    """Return the length that is announced, 0 for none. Raises `RequestError` for what llhttp lets pass and RFC 9112
    does not: another coding than chunked, HTTP of another kind, no or several Host, a body behind an upgrade.
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


def _changes_connection(headers: dict[str, str]) -> bool:
    """Whether something other than the next request may follow."""
    lasting = headers.get("connection", "keep-alive").lower() == "keep-alive"
    return not lasting or "expect" in headers or "upgrade" in headers


def _refuser(error: RequestError) -> Handler:
    def refuse(request: HttpRequest, reply: Reply) -> None:
        raise error

    return refuse


def _too_many() -> RequestError:
    return RequestError("Too many bodies are on their way.", code="unavailable", retry_after_s=1.0)


def _too_large(limit: int) -> RequestError:
    return RequestError(f"The body exceeds {limit} bytes.", code="too_large")
