"""What a codec is, and the words for what can go wrong. The extension point `hasten.wire`.

A codec turns a body and its headers into a `Request` and a `Response` into a body and headers. It knows no
socket, no server and no engine. Every failure is a `RequestError` whose code stands in `STATUS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from hasten.errors import RequestError
from hasten.registry import Entry, Registry
from hasten.spec.request import Request, Response
from hasten.spec.signature import Signature
from hasten.spec.values import Value

__all__ = ["LANE_HEADER", "STATUS", "Codec", "Encoded", "Limits", "codecs", "invalid"]

# The header, or the metadata of a call, by which a client names a lane.
LANE_HEADER = "hasten-lane"

# HTTP status of each error code (facts of the Open Inference Protocol; RFC 9110).
STATUS: dict[str, int] = {
    "invalid": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "too_large": 413,
    "unsupported_encoding": 415,
    "expectation_failed": 417,
    "overloaded": 429,
    "rate_limited": 429,
    "headers_too_large": 431,
    "internal": 500,
    "unavailable": 503,
    "deadline": 504,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a codec refuses. Bytes, and levels of nesting."""

    body: int = 64 * 2**20
    depth: int = 100
    dimensions: int = 32


class Encoded(Value, frozen=True):
    """An answer on its way out: parts of the body in order, and headers; `lines` are these as HTTP/1.1 writes them,
    where the codec has them ready.
    """

    parts: list[bytes | memoryview]
    headers: dict[str, str] = {}
    lines: str = ""


class Codec(Protocol):
    """Bytes to `Request`, `Response` to bytes."""

    name: str

    def decode(
        self, model: str, version: str, headers: Mapping[str, str], body: bytes, signature: Signature
    ) -> Request:
        """Return the request. Header names are lower-case. Raises `RequestError`."""
        ...

    def encode(self, request: Request, response: Response, headers: Mapping[str, str]) -> Encoded:
        """Return the answer in the form that the request and its headers ask for."""
        ...


def invalid(message: str) -> RequestError:
    """The error for bad input."""
    return RequestError(message, code="invalid")


codecs: Registry[Codec] = Registry(
    "wire",
    [
        Entry(name="oip-http", target="hasten.wire.oip_http:OipHttp"),
        Entry(name="oip-grpc", target="hasten.wire.oip_grpc:OipGrpc"),
    ],
)
