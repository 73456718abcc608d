"""An inference over HTTP: decode, submit, encode. What takes long to decode is decoded beside the event loop."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from hasten.errors import RequestError
from hasten.serve.bugs import internal
from hasten.serve.http.message import Cancel, Handler, HttpRequest, Reply, refusal
from hasten.serve.origin import Origin
from hasten.serve.service import ModelService
from hasten.serve.unread import Unread
from hasten.spec.request import Request, Response
from hasten.wire.base import LANE_HEADER
from hasten.wire.oip_http import HEADER_LENGTH, OipHttp

__all__ = ["Inference", "origin_of"]

Refused = Callable[[HttpRequest, RequestError], None]

# Bytes of JSON or of compressed data that take some milliseconds. Binary tensors are not copied, whatever their size.
_LONG = 2**20


class Inference:
    """Carries requests from HTTP to a service and answers back. One long body is decoded at a time: as Python's objects
    JSON takes many times its size. `refused` is told of what turns out to be invalid later than `start`. While clients
    leave too much `unread`, nothing begins.
    """

    def __init__(self, codec: OipHttp, refused: Refused, unread: Unread | None = None) -> None:
        self._codec = codec
        self._unread = unread or Unread()
        self._refused = refused
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="decode")

    def start(self, service: ModelService, request: HttpRequest, reply: Reply) -> Cancel:
        """Answer through `reply`; returns how to give up. Raises `RequestError` for what is not valid at once."""
        self._unread.check()
        origin = origin_of(request)
        if service.driver.is_crowded and self._is_refused(service, request, reply, origin):
            return _nothing
        if len(request.body) <= _LONG or not _takes_long(request):
            try:
                decoded = self._decode(service, request)
            except RequestError as error:
                service.tally.fail(error.code)
                raise
            return self._submit(service, request, reply, origin, decoded)
        decode = functools.partial(self._decode, service, request)
        submit = functools.partial(self._submit, service, request, reply, origin)
        refused = functools.partial(self._refused, request)
        return _Later(service, reply, submit, refused, self._aside, decode).cancel

    def turn_away(self, service: ModelService, request: HttpRequest, beginning: bytes | memoryview) -> Handler | None:
        """Return who refuses a request of which this is there of the body, None where it may be taken, or where that
        does not tell what is asked.
        """
        try:
            self._unread.check()
        except RequestError as crowded:
            self._refused(request, crowded)
            return _Turned(crowded).answer
        if service.driver.core.has_room:
            return None
        asked = self._announced(service, request, bytes(beginning))
        error = None if asked is None else service.turn_away(asked, origin_of(request))
        return None if error is None else _Turned(error).answer

    def _is_refused(self, service: ModelService, request: HttpRequest, reply: Reply, origin: Origin) -> bool:
        """Whether a request is refused, and told so, before anybody looks at its data."""
        body, asked = request.body, None
        if isinstance(body, bytes):
            asked = self._announced(service, request, body)
        refused = None if asked is None else service.refuse(asked, origin)
        if refused is None:
            return False
        reply(*refusal(refused))
        return True

    def _announced(self, service: ModelService, request: HttpRequest, beginning: bytes) -> Request | None:
        """What is asked, where that is known of a request that begins like this."""
        assert request.route is not None
        manifest = service.bundle.manifest
        version = request.route.version
        return self._codec.announced(manifest.name, version, request.headers, beginning, manifest.signature)

    def _decode(self, service: ModelService, request: HttpRequest) -> Request:
        assert request.route is not None
        manifest = service.bundle.manifest
        version = request.route.version
        return self._codec.decode(manifest.name, version, request.headers, request.body, manifest.signature)

    def _submit(
        self, service: ModelService, request: HttpRequest, reply: Reply, origin: Origin, decoded: Request
    ) -> Cancel:
        return service.submit(
            decoded, functools.partial(self._answered, decoded, request.headers, origin, reply), origin
        )

    def _answered(
        self,
        request: Request,
        headers: Mapping[str, str],
        origin: Origin,
        reply: Reply,
        result: Response | RequestError,
    ) -> None:
        if isinstance(result, RequestError):
            reply(*refusal(result))
            return
        try:
            answer = self._codec.encode(request, result, headers)
        except Exception as error:
            # Outputs that JSON cannot carry, or a bug of ours.
            origin.error = error if isinstance(error, RequestError) else internal(error)
            reply(*refusal(origin.error))
            return
        origin.bytes_out = sum([len(part) for part in answer.parts])
        reply(200, answer)


def _nothing() -> None:
    """There is nothing to give up."""


class _Turned:
    """Answers with an error of which observers know already."""

    def __init__(self, error: RequestError) -> None:
        self._error = error

    def answer(self, request: HttpRequest, reply: Reply) -> None:
        reply(*refusal(self._error))


class _Later:
    """A request whose body is being decoded on another thread; until it is cancelled, it goes on from there."""

    def __init__(
        self,
        service: ModelService,
        reply: Reply,
        submit: Callable[[Request], Cancel],
        refused: Callable[[RequestError], None],
        thread: ThreadPoolExecutor,
        decode: Callable[[], Request],
    ) -> None:
        self._service = service
        self._reply = reply
        self._submit = submit
        self._refused = refused
        self._submitted: Cancel | None = None
        self._cancelled = False
        self._work = asyncio.get_running_loop().run_in_executor(thread, decode)
        self._work.add_done_callback(self._decoded)

    def cancel(self) -> None:
        """Give up: what has not begun to be decoded never will."""
        self._cancelled = True
        self._work.cancel()
        if self._submitted is not None:
            self._submitted()

    def _decoded(self, work: asyncio.Future[Request]) -> None:
        error = None if work.cancelled() else work.exception()
        if self._cancelled:
            return
        if error is None:
            self._submitted = self._submit(work.result())
            return
        known = error if isinstance(error, RequestError) else internal(error)
        self._service.tally.fail(known.code)
        self._refused(known)
        self._reply(*refusal(known))


def origin_of(request: HttpRequest) -> Origin:
    """What the driver is told of a request that is complete now."""
    return Origin(
        time.monotonic(),
        transport="http",
        request_id=request.id,
        trace=request.headers.get("traceparent", ""),
        bytes_in=len(request.body),
        wish=request.headers.get(LANE_HEADER, ""),
        caller=request.caller,
    )


def _takes_long(request: HttpRequest) -> bool:
    """Whether a long body has to be parsed or inflated."""
    headers = request.headers
    return HEADER_LENGTH not in headers or "content-encoding" in headers
