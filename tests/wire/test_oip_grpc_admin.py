from __future__ import annotations

import pytest

from hasten.errors import RequestError
from hasten.spec.serving import Serving
from hasten.spec.signature import Signature
from hasten.spec.tensor import TensorSpec
from hasten.wire import oip_grpc_admin as admin
from hasten.wire.protobuf import STRUCTURE_BYTES

pb = pytest.importorskip("tritonclient.grpc.service_pb2", reason="an independent client reads the messages")

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="FP32", shape=("batch", 4, "?")),),
    outputs=(TensorSpec(name="words", dtype="BYTES", shape=("batch",)),),
)


def test_the_metadata_leave_free_dimensions_at_minus_one() -> None:
    answer = pb.ModelMetadataResponse.FromString(admin.model_metadata("m", SIGNATURE))
    assert (answer.name, answer.versions[:], answer.inputs[0].shape[:]) == ("m", ["1"], [-1, 4, -1])
    assert answer.outputs[0].datatype == "BYTES"


def test_the_configuration_of_a_model_that_batches_leaves_out_the_batch_axis() -> None:
    serving = Serving(instances=2, max_batch=8, max_delay_ms=1.5)
    config = pb.ModelConfigResponse.FromString(admin.model_config("m", SIGNATURE, serving, 8)).config
    assert (config.max_batch_size, config.instance_group[0].count) == (8, 2)
    assert config.dynamic_batching.max_queue_delay_microseconds == 1500
    assert (config.input[0].dims[:], config.output[0].dims[:]) == ([4, -1], [])


def test_the_configuration_of_a_model_that_does_not_batch_has_whole_shapes() -> None:
    config = pb.ModelConfigResponse.FromString(admin.model_config("m", SIGNATURE, Serving(), 1)).config
    assert (config.max_batch_size, config.HasField("dynamic_batching")) == (0, False)
    assert config.input[0].dims[:] == [-1, 4, -1]


def test_statistics_pass_in_the_words_of_the_extension_and_leave_out_our_own() -> None:
    row = {
        "name": "m",
        "version": "1",
        "inference_count": 3,
        "execution_count": 2,
        "inference_stats": {"success": {"count": 3, "ns": 30}, "fail": {"count": 1, "ns": 5}},
        "batch_stats": [{"batch_size": 2, "compute_infer": {"count": 1, "ns": 15}}],
        "refusals": {"overloaded": 1},
    }
    stats = pb.ModelStatisticsResponse.FromString(admin.model_statistics([row])).model_stats[0]
    assert (stats.name, stats.inference_count, stats.execution_count) == ("m", 3, 2)
    assert (stats.inference_stats.fail.count, stats.inference_stats.success.ns) == (1, 30)
    assert stats.batch_stats[0].batch_size == 2


def test_the_index_says_why_a_model_is_not_ready() -> None:
    row = {"name": "b", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}
    [model] = pb.RepositoryIndexResponse.FromString(admin.index_response([row])).models
    assert (model.name, model.version, model.state, model.reason) == ("b", "1", "UNAVAILABLE", "unloaded")


def test_every_request_about_one_model_is_read_alike() -> None:
    for kind in (pb.ModelReadyRequest, pb.ModelMetadataRequest, pb.ModelConfigRequest, pb.ModelStatisticsRequest):
        assert admin.read_model_request(kind(name="m", version="1").SerializeToString()) == ("m", "1")


@pytest.mark.parametrize(
    "body",
    [b"\x0a", b"\x0a\x05m", b"\x1a\x01m", b"\x2b" * 10_000, b"\x0a\x01\xff"],
    ids=["cut off", "too short", "an unknown field", "nested groups", "not UTF-8"],
)
def test_a_malformed_request_is_the_client_s_fault(body: bytes) -> None:
    for read in (admin.read_model_request, admin.read_nothing, admin.read_index_request, admin.read_health_request):
        with pytest.raises(RequestError) as caught:
            read(body)
        assert caught.value.code == "invalid"


def test_a_request_of_no_use_for_its_size_is_refused() -> None:
    with pytest.raises(RequestError) as caught:
        admin.read_model_request(b"\x0a" + bytes(STRUCTURE_BYTES))
    assert caught.value.code == "too_large"


def test_health_is_told_in_the_words_of_the_health_protocol() -> None:
    assert admin.health_response("SERVING") == b"\x08\x01"
    assert admin.health_response("NOT_SERVING") == b"\x08\x02"
    assert admin.health_response("SERVICE_UNKNOWN") == b"\x08\x03"
    assert admin.read_health_request(b"\x0a\x04tiny") == "tiny"
