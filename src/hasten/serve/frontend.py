"""The HTTP front end: a bare ASGI application that routes, reads bodies within limits, and answers.

It knows HTTP and nothing of scheduling. A body must arrive within `receipt_s` seconds, because the server below
has no such deadline and a slow client could hold a connection for ever.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import math
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

from hasten.errors import RequestError
from hasten.serve.driver import ModelService
from hasten.wire.base import STATUS, Encoded, Limits
from hasten.wire.oip_http import OipHttp, encode_error, model_metadata, server_metadata

__all__ = ["Frontend"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_MODEL = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?P<verb>ready|infer))?")
_JSON = {"content-type": "application/json"}
# What a name may hold at all; which names exist is another question. Anything else is refused before it is looked up.
_NAME = re.compile(r"[A-Za-z0-9._~:@+-]{1,255}")
_LINGER_S = 2.0


class Frontend:
    """The ASGI application. `services` by model name; `ready` is the whole server's readiness."""

    def __init__(
        self, services: Mapping[str, ModelService], *, limits: Limits | None = None, receipt_s: float = 30.0
    ) -> None:
        self._services = services
        self._limits = limits or Limits()
        self._codec = OipHttp(self._limits)
        self._receipt_s = receipt_s
        self._version = importlib.metadata.version("hasten")
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        try:
            status, answer = await self._route(scope, receive)
        except RequestError as error:
            status, answer = STATUS[error.code], _error(error)
        except _ClientGone:
            return
        except Exception:
            # A bug of ours: the client gets the protocol's error, the log gets the traceback.
            await _reply(send, 500, _error(RequestError("The server failed on this request.", code="internal")))
            raise
        await _reply(send, status, answer, unread=receive if status == STATUS["too_large"] else None)

    async def _route(self, scope: Scope, receive: Receive) -> tuple[int, Encoded]:
        path, method = _path(scope), scope["method"]
        if path in ("/v2", "/v2/health/live", "/v2/health/ready"):
            _allow(method, "GET")
            return self._server_route(path)
        match = _MODEL.fullmatch(path)
        if match is None:
            raise RequestError("There is nothing at this path.", code="not_found")
        service = self._service(match["model"], match["version"])
        if match["verb"] == "infer":
            _allow(method, "POST")
            return 200, await self._infer(service, match["version"] or "", scope, receive)
        _allow(method, "GET")
        return _model_route(service, match["verb"], service.ready and not self.draining)

    def _server_route(self, path: str) -> tuple[int, Encoded]:
        if path == "/v2":
            return 200, Encoded(parts=[server_metadata(self._version)], headers=dict(_JSON))
        if path.endswith("live"):
            return 200, Encoded(parts=[b'{"live":true}'], headers=dict(_JSON))
        ready = not self.draining and all(service.ready for service in self._services.values())
        body = b'{"ready":true}' if ready else b'{"ready":false}'
        return (200 if ready else 503), Encoded(parts=[body], headers=dict(_JSON))

    def _service(self, model: str, version: str | None) -> ModelService:
        name = _decoded(model)
        service = self._services.get(name)
        if service is None:
            raise RequestError(f"The model {name[:100]!r} is not served here.", code="not_found")
        if version not in (None, "1"):
            raise RequestError(f"The model {name!r} has no version {version[:100]!r}.", code="not_found")
        return service

    async def _infer(self, service: ModelService, version: str, scope: Scope, receive: Receive) -> Encoded:
        headers = _headers(scope)
        body = await self._body(headers, receive)
        manifest = service.bundle.manifest
        request = self._codec.decode(manifest.name, version, headers, body, manifest.signature)
        response = await _unless_gone(service.infer(request), receive)
        return self._codec.encode(request, response, headers)

    async def _body(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > self._limits.body:
            raise _too_large(self._limits.body)
        try:
            async with asyncio.timeout(self._receipt_s):
                return await _read(receive, self._limits.body)
        except TimeoutError as error:
            raise RequestError(
                f"The body did not arrive within {self._receipt_s:g} s.", code="request_timeout"
            ) from error


class _ClientGone(Exception):
    """The client closed its connection; there is nobody to answer."""


async def _read(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def _unless_gone(work: Awaitable[Any], receive: Receive) -> Any:
    """Await the answer, unless the client leaves first: then the request gives its place back."""
    answer = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        answer.cancel()
        raise _ClientGone
    finally:
        gone.cancel()


def _model_route(service: ModelService, verb: str | None, ready: bool) -> tuple[int, Encoded]:
    manifest = service.bundle.manifest
    if verb is None:
        body = model_metadata(manifest.name, manifest.signature)
        return 200, Encoded(parts=[body], headers=dict(_JSON))
    flag = b"true" if ready else b"false"
    body = b'{"name":"' + manifest.name.encode() + b'","ready":' + flag + b"}"
    return (200 if ready else 503), Encoded(parts=[body], headers=dict(_JSON))


def _headers(scope: Scope) -> dict[str, str]:
    """Header values by lower-case name; repeated ones are joined, as RFC 9110 says, and fail where one is expected."""
    headers: dict[str, str] = {}
    for key, value in scope["headers"]:
        name, text = key.decode("latin-1"), value.decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers


def _path(scope: Scope) -> str:
    """The path as sent, still percent-encoded so that an encoded slash does not split a name; one slash at the
    end is fine.
    """
    raw = scope.get("raw_path") or scope["path"].encode()
    return raw.decode("latin-1").partition("?")[0].removesuffix("/")


def _decoded(name: str) -> str:
    decoded = unquote_to_bytes(name).decode("latin-1")
    if not _NAME.fullmatch(decoded) or decoded in (".", ".."):
        raise RequestError("The model name holds characters that no name has.", code="invalid")
    return decoded


def _allow(method: str, wanted: str) -> None:
    if method != wanted:
        raise RequestError(f"This path takes {wanted}, not {method[:20]}.", code="method_not_allowed")


def _too_large(limit: int) -> RequestError:
    return RequestError(f"The body exceeds {limit} bytes.", code="too_large")


def _error(error: RequestError) -> Encoded:
    headers = dict(_JSON)
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    if error.code in ("too_large", "request_timeout"):
        # The rest of the body is still on its way; nobody will read it.
        headers["connection"] = "close"
    return Encoded(parts=[encode_error(error)], headers=headers)


async def _reply(send: Send, status: int, answer: Encoded, *, unread: Receive | None = None) -> None:
    """Send an answer. With `unread`, keep reading for a while before the connection closes: closing on unread bytes
    resets it, and the reset would take the answer with it (RFC 9112 section 9.6).
    """
    size = sum(len(part) for part in answer.parts)
    headers = [(key.encode(), value.encode()) for key, value in answer.headers.items()]
    headers.append((b"content-length", str(size).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    body = answer.parts[0] if len(answer.parts) == 1 else b"".join(answer.parts)
    await send({"type": "http.response.body", "body": bytes(body), "more_body": unread is not None})
    if unread is not None:
        await _discard(unread)
        await send({"type": "http.response.body", "body": b""})


async def _discard(receive: Receive) -> None:
    try:
        async with asyncio.timeout(_LINGER_S):
            while (await receive()).get("more_body", False):
                pass
    except TimeoutError:
        # The client had its time to read the answer.
        pass
