"""grpc.health.v1: what load balancers and orchestrators ask over gRPC. The empty service is the whole server; so is the
inference service; a model's name is that model.
"""

from __future__ import annotations

from hasten.errors import RequestError
from hasten.serve.access import Operation
from hasten.serve.grpc.call import Call, Method
from hasten.serve.grpc.methods import SERVICE, Methods
from hasten.wire.oip_grpc_admin import HealthStatus, health_response, read_health_request

__all__ = ["Health"]

_OWN = ("", SERVICE, "grpc.health.v1.Health")


class Health:
    """Answers checks, and tells watchers of each change: `look` is to be called from time to time."""

    def __init__(self, methods: Methods) -> None:
        self._methods = methods
        self._watchers: dict[Call, tuple[str, HealthStatus]] = {}

    def table(self) -> dict[bytes, Method]:
        """Methods by their paths."""
        return {
            b"/grpc.health.v1.Health/Check": Method(operation=Operation.READY, take=self._check),
            b"/grpc.health.v1.Health/Watch": Method(operation=Operation.READY, take=self._watch),
        }

    def look(self) -> None:
        """Tell watchers what has changed."""
        for call, (service, told) in list(self._watchers.items()):
            status = self._status(service)
            if call.done:
                del self._watchers[call]
            elif status != told:
                self._tell(call, service, status)

    def _check(self, call: Call, message: bytes) -> None:
        status = self._status(read_health_request(message))
        if status == "SERVICE_UNKNOWN":
            raise RequestError("There is no such service.", code="not_found")
        call.reply([health_response(status)])

    def _watch(self, call: Call, message: bytes) -> None:
        service = read_health_request(message)
        call.watches = True
        call.cancel = lambda: self._watchers.pop(call, None) and None
        self._tell(call, service, self._status(service))

    def _tell(self, call: Call, service: str, status: HealthStatus) -> None:
        self._watchers[call] = (service, status)
        call.send([health_response(status)])

    def _status(self, service: str) -> HealthStatus:
        if service in _OWN:
            return "SERVING" if self._methods.ready() else "NOT_SERVING"
        if not self._methods.knows(service):
            return "SERVICE_UNKNOWN"
        return "SERVING" if self._methods.ready(service) else "NOT_SERVING"
