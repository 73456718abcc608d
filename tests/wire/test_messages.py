"""Our messages beside those of an independent client, in one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hasten.wire import messages
from hasten.wire.messages import DESCRIPTORS, POOL, message_type

service_pb2 = pytest.importorskip("tritonclient.grpc.service_pb2", reason="an independent client's stubs judge ours")
PROTO = Path(messages.__file__).parent / "proto"
# Parts of the published protocol that the independent client's copy does not have yet.
NEWER = {"inference.ModelMetadataResponse.properties"}


def theirs(name: str) -> Any:
    from tritonclient.grpc import model_config_pb2

    for module in (service_pb2, model_config_pb2):
        found = module.DESCRIPTOR.message_types_by_name.get(name)
        if found is not None:
            return found
    raise AssertionError(f"the published protocol has no message {name}")


def messages_of(descriptor: Any) -> Iterator[Any]:
    yield descriptor
    for nested in descriptor.nested_types:
        yield from messages_of(nested)


def facts(field: Any) -> tuple[object, ...]:
    kind = field.message_type or field.enum_type
    one_of = field.containing_oneof and field.containing_oneof.name
    return field.number, field.type, field.is_repeated, kind and kind.full_name, one_of


def our_file() -> Any:
    return POOL.FindFileByName("open_inference.proto")


@pytest.mark.parametrize("name", sorted(our_file().message_types_by_name))
def test_every_field_has_the_number_and_type_of_the_published_protocol(name: str) -> None:
    ours, published = our_file().message_types_by_name[name], theirs(name)
    nested = {message.full_name: message for message in messages_of(published)}
    for message in messages_of(ours):
        if message.full_name == "inference.ModelMetadataResponse.PropertiesEntry":
            continue
        for field in message.fields:
            if field.full_name in NEWER:
                continue
            counterpart = nested[message.full_name].fields_by_name[field.name]
            assert facts(field) == facts(counterpart), field.full_name


def test_the_properties_of_a_model_have_the_number_that_the_protocol_gave_them() -> None:
    fields = message_type("inference.ModelMetadataResponse").DESCRIPTOR.fields_by_name
    assert fields["properties"].number == 6


def test_every_method_takes_and_gives_what_the_published_protocol_says() -> None:
    published = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for method in our_file().services_by_name["GRPCInferenceService"].methods:
        other = published[method.name]
        assert method.input_type.full_name == other.input_type.full_name
        assert method.output_type.full_name == other.output_type.full_name
        assert method.client_streaming == other.client_streaming
        assert method.server_streaming == other.server_streaming


def test_element_types_have_the_published_numbers() -> None:
    from tritonclient.grpc import model_config_pb2

    ours = {value.name: value.number for value in our_file().enum_types_by_name["DataType"].values}
    assert ours == dict(model_config_pb2.DataType.items())


def test_our_messages_do_not_meet_those_of_a_client_in_the_same_process() -> None:
    from google.protobuf import descriptor_pool

    ours = message_type("inference.ModelInferRequest")
    assert ours is not service_pb2.ModelInferRequest
    assert POOL is not descriptor_pool.Default()
    body = service_pb2.ModelInferRequest(model_name="m", id="7").SerializeToString()
    assert ours.FromString(body).id == "7"


def test_the_compiled_descriptors_are_those_of_the_proto_files(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc", reason="the compiler comes with the dev extra")
    out = tmp_path / "descriptors.binpb"
    names = ["open_inference.proto", "health.proto", "reflection.proto", "reflection_v1alpha.proto"]
    assert protoc.main(["protoc", f"-I{PROTO}", f"--descriptor_set_out={out}", *names]) == 0
    assert out.read_bytes() == DESCRIPTORS, "run make proto"
