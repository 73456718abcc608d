"""What the server answers over HTTP. It knows routes, access and the codec, and nothing of sockets and scheduling."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping

from hasten.errors import RequestError
from hasten.serve.access import REPOSITORY_CONTROL, Operation
from hasten.serve.guard import Guard
from hasten.serve.http.inference import Inference, origin_of
from hasten.serve.http.management import Management
from hasten.serve.http.message import Cancel, Handler, HttpRequest, Reply, json_answer
from hasten.serve.http.routes import MethodNotAllowed, Route, resolve
from hasten.serve.http.scrape import Scrape
from hasten.serve.repository import Repository
from hasten.serve.service import ModelService
from hasten.serve.telemetry import Telemetry
from hasten.serve.told import emit, refusal_event
from hasten.serve.unread import Unread
from hasten.spec.event import NO_MODEL, UNKNOWN_MODEL
from hasten.wire.base import Limits
from hasten.wire.oip_http import OipHttp
from hasten.wire.oip_http_admin import model_metadata, server_metadata

__all__ = ["Frontend"]

_KNOWN_TARGETS = 1024


class Frontend:
    """The application behind the connections; a server that `is_draining` is not ready."""

    def __init__(
        self,
        repository: Repository,
        *,
        limits: Limits | None = None,
        guard: Guard | None = None,
        telemetry: Telemetry | None = None,
        unread: Unread | None = None,
    ) -> None:
        telemetry, unread = telemetry or Telemetry(), unread or Unread()
        self._sink = telemetry.sink
        self._services: Mapping[str, ModelService] = repository.services
        management = Management(repository, telemetry.sink)
        self._guard = guard or Guard()
        self._inference = Inference(OipHttp(limits or Limits()), self.refused, unread)
        self._version = importlib.metadata.version("hasten")
        self._routes: dict[bytes, Route] = {}
        self._handlers: dict[Operation, Handler] = {
            Operation.LIVE: self._live,
            Operation.READY: self._ready,
            Operation.SERVER_METADATA: self._server,
            Operation.MODEL_METADATA: self._model,
            Operation.MODEL_READY: self._model_ready,
            Operation.INFER: self._infer,
            Operation.MODEL_CONFIG: management.config,
            Operation.STATISTICS: management.statistics,
            Operation.REPOSITORY_INDEX: management.index,
            Operation.LOAD: management.load,
            Operation.UNLOAD: management.unload,
            Operation.API: management.api,
            Operation.METRICS: Scrape(telemetry.page, repository, unread).answer,
        }
        self.is_draining: Callable[[], bool] = lambda: False

    def open(self, request: HttpRequest) -> Handler:
        """Return who answers: after the checks of page, path, access, method and model, in this order. Raises
        `RequestError`.
        """
        self._guard.admit_page(request.headers)
        known = self._routes.get(request.target)
        route = request.route = known or resolve(request.target)
        request.caller = self._guard.decide(route.operation, request.headers.get("authorization"), request.caller)
        if request.method != route.method:
            raise MethodNotAllowed(request.method, route.method)
        if route.model and route.operation not in REPOSITORY_CONTROL:
            self._service(route)
        if known is None:
            self._remember(request.target, route)
        return self._handlers[route.operation]

    def reopen(self, request: HttpRequest) -> Handler:
        """Return who answers a request that has route and caller of another with the same header, which was opened on
        the same connection: only what may have changed since is looked at. Raises `RequestError`.
        """
        route = request.route
        assert route is not None
        self._guard.count(route.operation, request.caller)
        if route.model and route.operation not in REPOSITORY_CONTROL:
            self._service(route)
        return self._handlers[route.operation]

    def turn_away(self, request: HttpRequest, beginning: bytes | memoryview) -> Handler | None:
        """Return who refuses an inference that would be refused whatever the rest of its body is: under overload that
        rest is the most of what a refusal costs.
        """
        assert request.route is not None
        if request.route.operation is not Operation.INFER:
            return None
        return self._inference.turn_away(self._named(request), request, beginning)

    def refused(self, request: HttpRequest, error: RequestError) -> None:
        """Tell the observer of a request that the driver never saw. A model's name counts only where it is served."""
        if self._sink is None:
            return
        named = request.route.model if request.route is not None else ""
        model = (named if named in self._services else UNKNOWN_MODEL) if named else NO_MODEL
        emit(self._sink, refusal_event(model, origin_of(request), error))

    def _remember(self, target: bytes, route: Route) -> None:
        """Targets repeat, so that what they name is kept, within bounds."""
        if len(self._routes) >= _KNOWN_TARGETS:
            self._routes.clear()
        self._routes[target] = route

    def _service(self, route: Route) -> ModelService:
        service = self._services.get(route.model)
        if service is None:
            raise RequestError(f"The model {route.model[:100]!r} is not served here.", code="not_found")
        if route.version not in ("", "1"):
            raise RequestError(f"The model {route.model!r} has no version {route.version[:100]!r}.", code="not_found")
        return service

    def _named(self, request: HttpRequest) -> ModelService:
        """The service that is there when a request has arrived: it may be another than when it began to."""
        assert request.route is not None
        return self._service(request.route)

    def _live(self, request: HttpRequest, reply: Reply) -> None:
        reply(200, json_answer(b'{"live":true}'))

    def _ready(self, request: HttpRequest, reply: Reply) -> None:
        ready = not self.is_draining() and all(service.ready for service in self._services.values())
        reply(200 if ready else 503, json_answer(b'{"ready":true}' if ready else b'{"ready":false}'))

    def _server(self, request: HttpRequest, reply: Reply) -> None:
        reply(200, json_answer(server_metadata(self._version)))

    def _model(self, request: HttpRequest, reply: Reply) -> None:
        manifest = self._named(request).bundle.manifest
        reply(200, json_answer(model_metadata(manifest.name, manifest.signature)))

    def _model_ready(self, request: HttpRequest, reply: Reply) -> None:
        service = self._named(request)
        ready = service.ready and not self.is_draining()
        flag = b"true" if ready else b"false"
        name = service.bundle.manifest.name.encode()
        reply(200 if ready else 503, json_answer(b'{"name":"' + name + b'","ready":' + flag + b"}"))

    def _infer(self, request: HttpRequest, reply: Reply) -> Cancel:
        return self._inference.start(self._named(request), request, reply)
