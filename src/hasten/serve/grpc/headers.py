"""What the headers of a call say, and whether they may. Pure: bytes in, values or errors out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from hasten.errors import RequestError
from hasten.serve.grpc.call import Method
from hasten.wire.base import LANE_HEADER
from hasten.wire.grpc_framing import ENCODINGS, timeout_us

__all__ = ["Opening", "check_headers", "encoding_of", "no_grpc", "opening_of"]

_LANE = LANE_HEADER.encode()
Headers = Mapping[bytes, bytes]


class Opening(NamedTuple):
    """What good headers of a call say."""

    method: Method
    encoding: str
    authorization: str | None
    timeout_s: float | None
    request_id: str | None
    trace: str
    lane: str


def no_grpc(headers: Headers) -> bytes | None:
    """Return the HTTP status for a request that is no gRPC call, or None."""
    if headers.get(b":method") != b"POST":
        return b"405"
    return None if headers.get(b"content-type", b"").startswith(b"application/grpc") else b"415"


def check_headers(fields: tuple[tuple[bytes, bytes], ...], headers: Headers, most: int) -> None:
    """Raise `RequestError` for more than `most` bytes of names and values, or an encoding that is not understood.
    `fields` are all headers, `headers` the last of each name.
    """
    size = sum(map(len, headers)) + sum(map(len, headers.values()))
    if len(fields) > len(headers):
        size = sum(len(name) + len(value) for name, value in fields)
    if size > most:
        raise RequestError(f"The metadata exceed {most} bytes.", code="headers_too_large")
    encoding = encoding_of(headers)
    if encoding not in ENCODINGS:
        raise RequestError(
            f"The encoding {encoding[:40]!r} is not supported; use {', '.join(ENCODINGS)}.",
            code="unsupported_encoding",
        )


def encoding_of(headers: Headers) -> str:
    """Return how compressed messages of the client are compressed."""
    return headers.get(b"grpc-encoding", b"identity").decode("latin-1")


def opening_of(method: Method, headers: Headers) -> Opening:
    """Return what the headers of a call of `method` say. Raises `RequestError` (invalid) for an odd timeout."""
    timeout, given = headers.get(b"grpc-timeout"), headers.get(b"x-request-id")
    shown = headers.get(b"authorization")
    return Opening(
        method=method,
        encoding=encoding_of(headers),
        authorization=None if shown is None else shown.decode("latin-1"),
        timeout_s=None if timeout is None else timeout_us(timeout) / 1e6,
        request_id=None if given is None else given.decode("latin-1"),
        trace=headers.get(b"traceparent", b"").decode("latin-1"),
        lane=headers.get(_LANE, b"").decode("latin-1"),
    )
