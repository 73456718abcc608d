"""What gRPC adds to HTTP/2: messages with a length in front, deadlines, and a status in the trailers. No sockets.

Source: "gRPC over HTTP/2" and "gRPC Retry Design" (gRFC A6) of the gRPC project.
"""

from __future__ import annotations

import math
import struct

import numpy as np

from hasten.errors import RequestError
from hasten.wire.base import invalid
from hasten.wire.compression import decompress

__all__ = ["ENCODINGS", "GRPC_STATUS", "OK_TRAILERS", "MessageReader", "error_trailers", "frame", "timeout_us"]

Header = tuple[bytes, bytes]

# Status of each error code of `RequestError`. Shed load is never UNAVAILABLE: clients retry that at once.
GRPC_STATUS: dict[str, int] = {
    "invalid": 3,  # INVALID_ARGUMENT
    "deadline": 4,  # DEADLINE_EXCEEDED
    "request_timeout": 4,
    "not_found": 5,  # NOT_FOUND
    "forbidden": 7,  # PERMISSION_DENIED
    "too_large": 8,  # RESOURCE_EXHAUSTED
    "overloaded": 8,
    "rate_limited": 8,
    "headers_too_large": 8,
    "method_not_allowed": 12,  # UNIMPLEMENTED
    "expectation_failed": 12,
    "unsupported_encoding": 12,
    "internal": 13,  # INTERNAL
    "unavailable": 14,  # UNAVAILABLE: loading, draining
    "unauthenticated": 16,  # UNAUTHENTICATED
}
OK_TRAILERS: list[Header] = [(b"grpc-status", b"0")]
ENCODINGS = ("identity", "gzip", "deflate")
_PREFIX = struct.Struct(">BI")
# From how many bytes a message is put together while it arrives, and how many times what has come it may be long then.
_LONG, _RESERVED = 128 * 2**10, 64
_UNITS_NS = {"H": 3600 * 10**9, "M": 60 * 10**9, "S": 10**9, "m": 10**6, "u": 10**3, "n": 1}


class MessageReader:
    """Takes the bytes of one direction of a call and gives whole messages: at most of a limit, compressed ones in an
    encoding.

    A long message is put together while it arrives, where each frame is still in the processor's cache, and is given as
    a view.
    """

    __slots__ = ("_body", "_encoding", "_have", "_limit", "_need", "_parts")

    def __init__(self, limit: int, encoding: str = "identity") -> None:
        self._limit = limit
        self._encoding = encoding
        # What came, but for what is in the body: the long message that is arriving, without its prefix.
        self._parts: list[bytes] = []
        self._body: memoryview | None = None
        self._have = 0
        self._need = _PREFIX.size

    def __repr__(self) -> str:
        return f"<MessageReader with {self._have} of {self._need} bytes>"

    @property
    def buffered(self) -> int:
        """How many bytes wait for the rest of their message, or to be asked for."""
        return self._have

    @property
    def missing(self) -> int:
        """How many bytes are still to come of what has begun, as far as is known: a message, or the length of one."""
        return max(0, self._need - self._have)

    def feed(self, data: bytes) -> bool:
        """Take bytes as they come; say whether `look` or `next` could find something in them."""
        size = len(data)
        body = self._body
        have = self._have
        self._have = now = have + size
        if body is None:
            if size:
                self._parts.append(data)
        elif now <= self._need:
            body[have - _PREFIX.size : now - _PREFIX.size] = data
        else:
            self._end_body(have, data)
        return now >= self._need

    def next(self) -> bytes | memoryview | None:
        """Return the next whole message, or None until more bytes come. Raises as `look` does."""
        if len(self._parts) == 1 and self._need == _PREFIX.size <= self._have:
            # Most often a small message has come alone and whole.
            [data] = self._parts
            compressed, size = _PREFIX.unpack_from(data)
            if not compressed and size + _PREFIX.size == self._have and size <= self._limit:
                self._parts, self._have = [], 0
                return data[_PREFIX.size :]
        if not self.look():
            return None
        body = self._body
        if body is not None:
            self._have -= self._need
            self._body, self._need = None, _PREFIX.size
            return body.toreadonly()
        compressed = self._parts[0][0]
        # Cut before they are joined: a large message is copied once.
        self._parts[0] = self._parts[0][_PREFIX.size :]
        data, size = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts), self._need - _PREFIX.size
        message, rest = (data, b"") if len(data) == size else (data[:size], data[size:])
        self._parts = [rest] if rest else []
        self._have, self._need = len(rest), _PREFIX.size
        return self._plain(message) if compressed else message

    def look(self) -> bool:
        """Say whether a whole message is here.

        Raises `RequestError`: too_large as soon as a length beyond the limit is seen, unsupported_encoding, invalid.
        """
        if self._have < self._need:
            self._gather()
            return False
        if self._need > _PREFIX.size:
            return True
        if len(self._parts[0]) < _PREFIX.size:
            self._parts = [b"".join(self._parts)]
        compressed, size = _PREFIX.unpack_from(self._parts[0])
        if compressed > 1:
            raise invalid("A message begins with a flag that gRPC does not have.")
        if compressed and self._encoding == "identity":
            raise invalid("A message is compressed, and the call names no grpc-encoding.")
        if size > self._limit:
            raise RequestError(f"The message exceeds {self._limit} bytes.", code="too_large")
        self._need = _PREFIX.size + size
        if self._have >= self._need:
            return True
        self._gather()
        return False

    def clear(self) -> None:
        """Forget what waits."""
        self._parts, self._body, self._have, self._need = [], None, 0, _PREFIX.size

    def _gather(self) -> None:
        """Make the place of a long message that has begun to arrive and is not compressed."""
        need, have = self._need, self._have
        # A length alone, which costs a client nothing, reserves nothing.
        if self._body is not None or need < _LONG or need > _RESERVED * have or self._parts[0][0]:
            return
        body = self._body = np.empty(need - _PREFIX.size, np.uint8).data
        at = -_PREFIX.size
        for part in self._parts:
            end = at + len(part)
            body[max(at, 0) : end] = part[_PREFIX.size :] if at < 0 else part
            at = end
        self._parts = []

    def _end_body(self, have: int, data: bytes) -> None:
        """Complete the body with the first of these bytes, and keep the others."""
        body = self._body
        assert body is not None
        left = self._need - have
        if left > 0:
            body[have - _PREFIX.size :] = data[:left]
            data = data[left:]
        if data:
            self._parts.append(data)

    def _plain(self, message: bytes) -> bytes:
        return decompress(message, self._encoding, self._limit)


def frame(parts: list[bytes | memoryview]) -> list[bytes | memoryview]:
    """Return the parts of a message with its length in front."""
    return [_PREFIX.pack(0, sum(map(len, parts))), *parts]


def timeout_us(value: bytes) -> int:
    """Return the microseconds of a `grpc-timeout` header, at least 1. Raises `RequestError` (invalid)."""
    text = value.decode("latin-1")
    digits, unit = text[:-1], text[-1:]
    if not 1 <= len(digits) <= 8 or not digits.isascii() or not digits.isdigit() or unit not in _UNITS_NS:
        raise invalid(f"The grpc-timeout {text[:20]!r} is not up to eight digits and one of H, M, S, m, u, n.")
    return max(1, int(digits) * _UNITS_NS[unit] // 1000)


def error_trailers(error: RequestError) -> list[Header]:
    """Return status and words of an error, and when to come back where the server knows."""
    trailers = [
        (b"grpc-status", str(GRPC_STATUS[error.code]).encode()),
        (b"grpc-message", _percent_encoded(error.message)),
        (b"hasten-code", error.code.encode()),
    ]
    if error.retry_after_s is not None:
        trailers.append((b"grpc-retry-pushback-ms", str(math.ceil(1e3 * error.retry_after_s)).encode()))
    return trailers


def _percent_encoded(text: str) -> bytes:
    out = bytearray()
    for byte in text.encode("utf-8", "replace"):
        if 0x20 <= byte <= 0x7E and byte != 0x25:
            out.append(byte)
        else:
            out += b"%%%02X" % byte
    return bytes(out)
