"""A request as the front end sees it, and an answer as bytes. No sockets."""

from __future__ import annotations

import http
import math
from collections.abc import Callable, Mapping

from hasten.errors import RequestError
from hasten.serve.access import NOBODY
from hasten.serve.http.routes import MethodNotAllowed, Route
from hasten.serve.origin import new_request_id, request_id
from hasten.wire.base import STATUS, Encoded
from hasten.wire.known import Memory
from hasten.wire.oip_http import encode_error

__all__ = ["JSON", "Cancel", "Handler", "HttpRequest", "Reply", "json_answer", "refusal", "render"]

JSON = {"content-type": "application/json"}
_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in http.HTTPStatus}
# Answers up to this size are joined into one piece: one copy costs less than a second system call.
_JOINED = 64 * 2**10
# Of refusals under load there are many, and few that differ: their messages name nothing that a client sent.
_UNDER_LOAD = ("overloaded", "unavailable", "deadline")
_known: Memory[tuple[str, str, int], tuple[int, Encoded]] = Memory()


class HttpRequest:
    """One request: the target as sent, headers by lower-case name, and the body once it is complete. `old` is HTTP/1.0,
    `route` what the application found, `caller` whom the certificate names and then whom the application let in, `id`
    the client's own or one of ours.
    """

    __slots__ = ("body", "caller", "headers", "id", "method", "old", "route", "target")

    def __init__(self, method: str, target: bytes, headers: dict[str, str]) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        given = headers.get("x-request-id")
        self.id = new_request_id() if given is None else request_id(given)
        self.body: bytes | memoryview = b""
        self.old = False
        self.route: Route | None = None
        self.caller = NOBODY


Reply = Callable[[int, Encoded], None]
Cancel = Callable[[], object]
# Answers through the reply, now or later, exactly once; returns how to give up before that.
Handler = Callable[[HttpRequest, Reply], Cancel | None]


def json_answer(body: bytes) -> Encoded:
    """An answer whose body is JSON already."""
    return Encoded(parts=[body], headers=JSON)


def refusal(error: RequestError) -> tuple[int, Encoded]:
    """Return status and answer for an error."""
    again_s = 0 if error.retry_after_s is None else max(1, math.ceil(error.retry_after_s))
    if error.code not in _UNDER_LOAD:
        return _refusal(error, again_s)
    key = (error.code, error.message, again_s)
    found = _known.get(key)
    if found is None:
        found = _refusal(error, again_s)
        _known.keep(key, found)
    return found


def _refusal(error: RequestError, again_s: int) -> tuple[int, Encoded]:
    headers = dict(JSON)
    if again_s:
        headers["retry-after"] = str(again_s)
    if error.code == "unauthenticated":
        headers["www-authenticate"] = 'Bearer realm="hasten"'
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = error.allow
    return STATUS[error.code], Encoded(parts=[encode_error(error)], headers=headers, lines=_written(headers))


def _written(headers: Mapping[str, str]) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


def render(status: int, answer: Encoded, extra: str, *, bodiless: bool = False) -> list[bytes | memoryview]:
    """Return the answer's bytes in pieces to write together. `extra` are further header lines; an answer to
    HEAD is `bodiless`: it tells the length and sends nothing.
    """
    size = sum([len(part) for part in answer.parts])
    fields = answer.lines or _written(answer.headers)
    head = f"{_LINES[status]}{extra}{fields}content-length: {size}\r\n\r\n".encode("latin-1")
    if bodiless:
        return [head]
    return [b"".join([head, *answer.parts])] if size <= _JOINED else [head, *answer.parts]
