"""A client that knows nothing but reflection finds the methods, learns the messages, and calls one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool

from hasten.serve.server import Running
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


def test_whoever_asks_on_without_reading_is_stopped(server: Running, channel: Any) -> None:
    request = message_type("grpc.reflection.v1.ServerReflectionRequest")(file_containing_symbol=SERVICE)
    sent: list[int] = []

    def requests() -> Iterator[bytes]:
        for number in range(100_000):
            sent.append(number)
            yield request.SerializeToString()

    call = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    answers = call(requests(), timeout=PATIENCE_S)
    # The status stands behind the answers that were not read, so that the end of the stream may overtake it.
    assert answers.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL)
    assert len(sent) < 100_000
