"""An inference over HTTP: decode, submit, encode. What takes long to decode is decoded beside the event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from hasten.errors import RequestError
from hasten.serve.driver import ModelService
from hasten.serve.http.message import Cancel, HttpRequest, Reply, internal, refusal
from hasten.spec.request import Request, Response
from hasten.wire.base import Encoded
from hasten.wire.oip_http import HEADER_LENGTH, OipHttp

__all__ = ["Inference"]

# Bytes of JSON or of compressed data that take some milliseconds. Binary tensors are not copied, whatever their size.
_LONG = 2**20


class Inference:
    """Carries requests from HTTP to a service and answers back. One long body is decoded at a time: as Python's objects
    JSON takes many times its size.
    """

    def __init__(self, codec: OipHttp) -> None:
        self._codec = codec
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="decode")

    def start(self, service: ModelService, request: HttpRequest, reply: Reply) -> Cancel:
        """Answer through `reply`; returns how to give up. Raises `RequestError` for what is not valid at once."""
        decode = functools.partial(self._decode, service, request)
        submit = functools.partial(self._submit, service, request, reply)
        if not _takes_long(request):
            try:
                decoded = decode()
            except RequestError as error:
                service.tally.fail(error.code)
                raise
            return submit(decoded)
        return _Later(service, reply, submit, self._aside, decode).cancel

    def _decode(self, service: ModelService, request: HttpRequest) -> Request:
        assert request.route is not None
        manifest = service.bundle.manifest
        version = request.route.version
        return self._codec.decode(manifest.name, version, request.headers, request.body, manifest.signature)

    def _submit(self, service: ModelService, request: HttpRequest, reply: Reply, decoded: Request) -> Cancel:
        return service.submit(decoded, functools.partial(self._answered, decoded, request.headers, reply))

    def _answered(
        self, request: Request, headers: Mapping[str, str], reply: Reply, result: Response | RequestError
    ) -> None:
        status, answer = (
            refusal(result) if isinstance(result, RequestError) else self._encoded(request, result, headers)
        )
        reply(status, answer)

    def _encoded(self, request: Request, response: Response, headers: Mapping[str, str]) -> tuple[int, Encoded]:
        try:
            return 200, self._codec.encode(request, response, headers)
        except RequestError as error:
            # Outputs that JSON cannot carry.
            return refusal(error)
        except Exception as error:
            return refusal(internal(error))


class _Later:
    """A request whose body is being decoded on another thread; until it is cancelled, it goes on from there."""

    def __init__(
        self,
        service: ModelService,
        reply: Reply,
        submit: Callable[[Request], Cancel],
        thread: ThreadPoolExecutor,
        decode: Callable[[], Request],
    ) -> None:
        self._service = service
        self._reply = reply
        self._submit = submit
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
        self._reply(*refusal(known))


def _takes_long(request: HttpRequest) -> bool:
    headers = request.headers
    return len(request.body) > _LONG and (HEADER_LENGTH not in headers or "content-encoding" in headers)
