"""grpc.reflection: lets grpcurl and its like find methods and messages, as openapi.json does over HTTP."""

from __future__ import annotations

from hasten.errors import RequestError
from hasten.serve.access import Operation
from hasten.serve.grpc.call import Call, Method
from hasten.wire.reflection import reflect

__all__ = ["reflection_table"]

_SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
# An answer is a thousand times as long as its request: whoever asks on without reading gets no more.
_MOST_UNSENT = 256 * 1024


def reflection_table() -> dict[bytes, Method]:
    """Methods by their paths; each request of a stream is answered at once."""
    method = Method(operation=Operation.API, take=_answer, end=Call.finish, streaming=True)
    return {f"/{service}/ServerReflectionInfo".encode(): method for service in _SERVICES}


def _answer(call: Call, message: bytes) -> None:
    if call.unsent > _MOST_UNSENT:
        raise RequestError("The answers so far were not read.", code="too_large")
    call.send([reflect(message)])
