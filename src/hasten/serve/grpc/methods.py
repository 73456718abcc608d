"""The methods of the Open Inference Protocol: what the server answers over gRPC. It knows the codec and the services,
and nothing of connections.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.metadata
import time
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from hasten.errors import RequestError
from hasten.serve.access import Operation
from hasten.serve.changes import Change, Changes, check_parameters
from hasten.serve.grpc.call import Call, Message, Method
from hasten.serve.grpc.stream import Stream
from hasten.serve.guard import Guard
from hasten.serve.origin import Origin, request_id
from hasten.serve.repository import Repository
from hasten.serve.service import ModelService
from hasten.serve.told import emit, refusal_event
from hasten.serve.unread import Unread
from hasten.spec.event import UNKNOWN_MODEL, Sink
from hasten.spec.request import Request, Response
from hasten.wire import oip_grpc_admin as admin
from hasten.wire.base import Limits
from hasten.wire.oip_grpc import OipGrpc, stream_error, stream_response

__all__ = ["SERVICE", "Methods"]

SERVICE = "inference.GRPCInferenceService"
Answer = Callable[[Origin, Request, Response | RequestError], None]


class Methods:
    """The application behind the calls; a server that `is_draining` is not ready."""

    def __init__(
        self,
        repository: Repository,
        limits: Limits,
        guard: Guard,
        sink: Sink | None = None,
        unread: Unread | None = None,
    ) -> None:
        self._sink = sink
        self._unread = unread or Unread()
        self._guard = guard
        self._changes = Changes(repository, sink)
        self._repository = repository
        self._services = repository.services
        self._codec = OipGrpc(limits)
        self._version = importlib.metadata.version("hasten")
        self.is_draining: Callable[[], bool] = lambda: False

    def table(self) -> dict[bytes, Method]:
        """Methods by their paths."""
        unary = {
            "ServerLive": (Operation.LIVE, self._live),
            "ServerReady": (Operation.READY, self._ready),
            "ModelReady": (Operation.MODEL_READY, self._model_ready),
            "ServerMetadata": (Operation.SERVER_METADATA, self._server),
            "ModelMetadata": (Operation.MODEL_METADATA, self._model),
            "ModelConfig": (Operation.MODEL_CONFIG, self._config),
            "ModelStatistics": (Operation.STATISTICS, self._statistics),
            "RepositoryIndex": (Operation.REPOSITORY_INDEX, self._index),
        }
        methods = {
            name: Method(operation=operation, take=functools.partial(_answer_with, answer))
            for name, (operation, answer) in unary.items()
        }
        changes: dict[Change, Operation] = {"load": Operation.LOAD, "unload": Operation.UNLOAD}
        for what, operation in changes.items():
            change = functools.partial(self._change, what)
            methods[f"RepositoryModel{what.title()}"] = Method(operation=operation, take=change)
        methods["ModelInfer"] = Method(operation=Operation.INFER, take=self._infer, views=True)
        methods["ModelStreamInfer"] = Method(
            operation=Operation.INFER, take=self._stream_infer, end=_end_stream, streaming=True, views=True
        )
        return {f"/{SERVICE}/{name}".encode(): method for name, method in methods.items()}

    def ready(self, model: str = "") -> bool:
        """Whether a model takes requests, or all of them."""
        if self.is_draining():
            return False
        if model:
            return model in self._services and self._services[model].ready
        return all(service.ready for service in self._services.values())

    def knows(self, model: str) -> bool:
        """Whether a model of that name is served here."""
        return model in self._services

    def refused(self, call: Call, error: RequestError) -> None:
        """Tell the observer of a call, or of a request in one, that got an error and was never queued."""
        if self._sink is not None:
            emit(self._sink, refusal_event(call.model, _origin(call), error))

    def _live(self, call: Call, message: bytes) -> bytes:
        admin.read_nothing(message)
        return admin.flag_response("ServerLive", True)

    def _ready(self, call: Call, message: bytes) -> bytes:
        admin.read_nothing(message)
        return admin.flag_response("ServerReady", self.ready())

    def _model_ready(self, call: Call, message: bytes) -> bytes:
        name, version = admin.read_model_request(message)
        # An unknown model is not ready; that is no error.
        return admin.flag_response("ModelReady", bool(name) and version in ("", "1") and self.ready(name))

    def _server(self, call: Call, message: bytes) -> bytes:
        admin.read_nothing(message)
        return admin.server_metadata(self._version)

    def _model(self, call: Call, message: bytes) -> bytes:
        manifest = self._service(call, *admin.read_model_request(message)).bundle.manifest
        return admin.model_metadata(manifest.name, manifest.signature)

    def _config(self, call: Call, message: bytes) -> bytes:
        service = self._service(call, *admin.read_model_request(message))
        manifest, plan = service.bundle.manifest, service.plan
        return admin.model_config(manifest.name, manifest.signature, plan.serving, plan.policy.max_batch)

    def _statistics(self, call: Call, message: bytes) -> bytes:
        name, version = admin.read_model_request(message)
        services = {name: self._service(call, name, version)} if name else self._services
        return admin.model_statistics(service.tally.as_statistics(one) for one, service in sorted(services.items()))

    def _index(self, call: Call, message: bytes) -> bytes:
        ready_only = admin.read_index_request(message)
        return admin.index_response(
            row for row in self._repository.index() if row["state"] == "READY" or not ready_only
        )

    def _change(self, what: Change, call: Call, message: bytes) -> None:
        model, parameters = admin.read_change_request(what, message)
        check_parameters(parameters)

        def done(error: RequestError | None) -> None:
            if error is None:
                call.reply([b""])
            else:
                call.finish(error)

        # The change goes on where its client leaves.
        call.cancel = self._changes.begin(what, model, request_id(call.request_id), done)

    def _infer(self, call: Call, message: Message) -> None:
        call.cancel = self._submit(call, message, functools.partial(self._answered, call))

    def _answered(self, call: Call, origin: Origin, request: Request, result: Response | RequestError) -> None:
        call.cancel = None
        try:
            if isinstance(result, RequestError):
                call.finish(result)
            else:
                parts = self._codec.encode(request, result, {}).parts
                origin.bytes_out = sum(map(len, parts))
                call.reply(parts)
        except Exception as error:
            origin.error = _bug(error)
            call.finish(origin.error)

    def _stream_infer(self, call: Call, message: Message) -> None:
        stream = call.state
        if not isinstance(stream, Stream):
            stream = call.state = Stream(call)
        place = stream.place()
        try:
            self._guard.count(Operation.INFER, call.caller)
            cancel = self._submit(call, message, functools.partial(self._answered_on, stream, place))
        except RequestError as error:
            self.refused(call, error)
            stream.put(place, [stream_error(error.message, "")])
        else:
            stream.under_way(place, cancel)

    def _answered_on(
        self, stream: Stream, place: int, origin: Origin, request: Request, result: Response | RequestError
    ) -> None:
        try:
            if isinstance(result, RequestError):
                stream.put(place, [stream_error(result.message, request.id)])
            else:
                parts = stream_response(self._codec.encode(request, result, {}).parts)
                origin.bytes_out = sum(map(len, parts))
                stream.put(place, parts)
        except Exception as error:
            origin.error = _bug(error)
            stream.put(place, [stream_error(origin.error.message, request.id)])

    def _submit(self, call: Call, message: Message, answer: Answer) -> Callable[[], None]:
        """Queue the request of a message; return what gives its place back. Raises `RequestError`."""
        self._unread.check()
        origin = _origin(call)
        parsed = self._codec.parse(message)
        service = self._service(call, parsed.model_name, parsed.model_version)
        request = self._request(service, message, parsed)
        if call.deadline is not None:
            request = _within(request, call.deadline - asyncio.get_running_loop().time())
        return service.submit(request, functools.partial(answer, origin, request), origin)

    def _request(self, service: ModelService, message: Message, parsed: Any) -> Request:
        try:
            return self._codec.read(message, service.bundle.manifest.signature, parsed)
        except RequestError as error:
            service.tally.fail(error.code)
            raise

    def _service(self, call: Call, name: str, version: str) -> ModelService:
        service = self._services.get(name)
        call.model = UNKNOWN_MODEL if service is None else name
        if service is None:
            raise RequestError(f"The model {name[:100]!r} is not served here.", code="not_found")
        if version not in ("", "1"):
            raise RequestError(f"The model {name!r} has no version {version[:100]!r}.", code="not_found")
        return service


def _origin(call: Call) -> Origin:
    return Origin(
        time.monotonic(),
        transport="grpc",
        request_id=request_id(call.request_id),
        trace=call.trace,
        bytes_in=call.bytes_in,
        wish=call.lane,
        caller=call.caller,
    )


def _answer_with(answer: Callable[[Call, bytes], bytes], call: Call, message: bytes) -> None:
    call.reply([answer(call, message)])


def _end_stream(call: Call) -> None:
    if isinstance(call.state, Stream):
        call.state.end()
    else:
        call.finish()


def _within(request: Request, left_s: float) -> Request:
    """The request with the shorter of its own timeout and what the call leaves it. Raises `RequestError`."""
    if left_s <= 0:
        raise RequestError("The deadline had passed when the request was complete.", code="deadline")
    left_us = max(1, round(1e6 * left_s))
    return replace(request, timeout_us=min(request.timeout_us or left_us, left_us))


def _bug(error: Exception) -> RequestError:
    """The client gets the protocol's error, the log gets the traceback."""
    if isinstance(error, RequestError):
        return error
    context = {"message": "An answer could not be encoded.", "exception": error}
    asyncio.get_running_loop().call_exception_handler(context)
    return RequestError("The server failed on this request.", code="internal")
