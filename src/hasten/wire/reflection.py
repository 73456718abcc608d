"""gRPC server reflection: which services there are, and the files that describe them. Bytes to bytes, no sockets.

Source: grpc.reflection.v1 and v1alpha of the gRPC project, whose messages are the same on the wire.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2

from hasten.wire.grpc_framing import GRPC_STATUS
from hasten.wire.messages import DESCRIPTORS, message_type
from hasten.wire.oip_grpc_admin import Reader

__all__ = ["SERVICES", "reflect"]

_NOT_FOUND = GRPC_STATUS["not_found"]
_FILES = {file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS).file}
SERVICES = sorted(f"{file.package}.{service.name}" for file in _FILES.values() for service in file.service)
"""The full names of all services."""


def _names(kind: Any, prefix: str) -> Iterator[str]:
    """The full names of a message and of what stands in it."""
    name = f"{prefix}.{kind.name}"
    yield name
    yield from (f"{name}.{one.name}" for one in (*kind.field, *kind.enum_type))
    for nested in kind.nested_type:
        yield from _names(nested, name)


def _symbols(file: Any) -> Iterator[str]:
    for kind in file.message_type:
        yield from _names(kind, file.package)
    yield from (f"{file.package}.{kind.name}" for kind in file.enum_type)
    for service in file.service:
        yield f"{file.package}.{service.name}"
        yield from (f"{file.package}.{service.name}.{method.name}" for method in service.method)


# A pool finds messages and services by their names, but no methods.
_FILE_OF = {symbol: file.name for file in _FILES.values() for symbol in _symbols(file)}
_read = Reader("grpc.reflection.v1.ServerReflectionRequest")
_Response: Any = message_type("grpc.reflection.v1.ServerReflectionResponse")


def reflect(body: bytes) -> bytes:
    """Return the answer to one request of a stream; what is not here is told in the answer. Raises `RequestError`."""
    request = _read(body)
    response = _Response(valid_host=request.host, original_request=request, **_answer(request))
    return response.SerializeToString()


def _answer(request: Any) -> dict[str, Any]:
    kind = request.WhichOneof("message_request")
    match kind:
        case "list_services":
            return {"list_services_response": {"service": [{"name": name} for name in SERVICES]}}
        case "file_by_filename":
            return _file(request.file_by_filename)
        case "file_containing_symbol":
            return _file(_FILE_OF.get(request.file_containing_symbol))
        case "all_extension_numbers_of_type":
            return _extensions(request.all_extension_numbers_of_type)
        case "file_containing_extension":
            return _error(_NOT_FOUND, "No message here has extensions.")
        case _:
            return _error(GRPC_STATUS["invalid"], "The request asks for nothing.")


def _file(name: str | None) -> dict[str, Any]:
    """No file here imports another, so that one is all that belongs to it."""
    file = _FILES.get(name or "")
    if file is None:
        return _error(_NOT_FOUND, "There is no such file or symbol.")
    return {"file_descriptor_response": {"file_descriptor_proto": [file.SerializeToString()]}}


def _extensions(name: str) -> dict[str, Any]:
    if name not in _FILE_OF:
        return _error(_NOT_FOUND, "There is no such message.")
    return {"all_extension_numbers_response": {"base_type_name": name}}


def _error(code: int, message: str) -> dict[str, Any]:
    return {"error_response": {"error_code": code, "error_message": message}}
