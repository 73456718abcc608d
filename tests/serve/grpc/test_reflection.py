"""A client that knows nothing but reflection finds the methods, learns the messages, and calls one."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool

from hasten.errors import RequestError
from hasten.serve.grpc.call import Call, Parts
from hasten.serve.grpc.reflection import reflection_table
from hasten.wire.grpc_framing import MessageReader, frame
from hasten.wire.messages import message_type

grpc = pytest.importorskip("grpc", reason="gRPC's own library calls the server")
PATIENCE_S = 30.0
VERSIONS = ("v1", "v1alpha")
SERVICE = "inference.GRPCInferenceService"


def ask(channel: Any, version: str, *requests: dict[str, Any]) -> list[Any]:
    package = f"grpc.reflection.{version}"
    request, response = (message_type(f"{package}.ServerReflection{kind}") for kind in ("Request", "Response"))
    call = channel.stream_stream(
        f"/{package}.ServerReflection/ServerReflectionInfo",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response.FromString,
    )
    return list(call(iter([request(**fields) for fields in requests]), timeout=PATIENCE_S))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_service_is_listed_and_described(channel: Any, version: str) -> None:
    [listed] = ask(channel, version, {"list_services": "*", "host": "h"})
    names = [service.name for service in listed.list_services_response.service]
    assert {SERVICE, "grpc.health.v1.Health", f"grpc.reflection.{version}.ServerReflection"} <= set(names)
    assert (listed.valid_host, listed.original_request.host) == ("h", "h")
    answers = ask(channel, version, *({"file_containing_symbol": name} for name in names))
    assert all(len(answer.file_descriptor_response.file_descriptor_proto) == 1 for answer in answers)


def test_what_reflection_gives_is_enough_to_call(channel: Any) -> None:
    [answer] = ask(channel, "v1", {"file_containing_symbol": f"{SERVICE}.ServerMetadata"})
    [blob] = answer.file_descriptor_response.file_descriptor_proto
    pool = DescriptorPool()
    pool.Add(descriptor_pb2.FileDescriptorProto.FromString(blob))
    method = pool.FindServiceByName(SERVICE).methods_by_name["ServerMetadata"]
    request, response = (message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type))
    call = channel.unary_unary(f"/{SERVICE}/ServerMetadata")
    found: Any = response.FromString(call(request().SerializeToString(), timeout=PATIENCE_S))
    assert found.name == "hasten"


def test_what_is_not_there_is_told_in_the_answer_and_the_stream_goes_on(channel: Any) -> None:
    found = ask(
        channel,
        "v1",
        {"file_containing_symbol": "inference.Nothing"},
        {"file_by_filename": "../health.proto"},
        {"file_containing_extension": {"containing_type": "inference.ModelInferRequest", "extension_number": 7}},
        {"all_extension_numbers_of_type": "inference.ModelInferRequest"},
        {},
        {"file_by_filename": "health.proto"},
    )
    assert [answer.error_response.error_code for answer in found] == [5, 5, 5, 0, 3, 0]
    assert found[3].all_extension_numbers_response.base_type_name == "inference.ModelInferRequest"
    assert found[5].HasField("file_descriptor_response")


class Line:
    """A connection whose client reads nothing."""

    def __init__(self) -> None:
        self.waiting = 0

    def send(self, call: Call, parts: Parts) -> None:
        self.waiting += sum(map(len, parts))

    def unsent(self, call: Call | None = None) -> int:
        return self.waiting

    def finish(self, call: Call, error: RequestError | None) -> None:
        pass

    def resume(self, call: Call) -> None:
        pass


def test_whoever_asks_on_without_reading_is_stopped() -> None:
    line, [method, *_] = Line(), reflection_table().values()
    call = Call(1, line, method, MessageReader(1000), 0.0, 64)
    request = message_type("grpc.reflection.v1.ServerReflectionRequest")(file_containing_symbol=SERVICE)
    asked = b"".join(bytes(part) for part in frame([request.SerializeToString()]))

    def ask_on() -> None:
        for _ in range(1000):
            call.reader.feed(asked)
            call.read(ended=False)

    with pytest.raises(RequestError, match="not read"):
        ask_on()
    assert line.waiting < 2**19
