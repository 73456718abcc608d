"""grpc.health.v1, asked by gRPC's own library."""

from __future__ import annotations

from typing import Any

import pytest

from hasten.wire.messages import message_type

grpc = pytest.importorskip("grpc", reason="gRPC's own library calls the server")

REQUEST, RESPONSE = (message_type(f"grpc.health.v1.HealthCheck{kind}") for kind in ("Request", "Response"))
PATIENCE_S = 15.0


def check(channel: Any, service: str) -> str:
    call = channel.unary_unary("/grpc.health.v1.Health/Check")
    answer = RESPONSE.FromString(call(REQUEST(service=service).SerializeToString(), timeout=PATIENCE_S))
    return RESPONSE.ServingStatus.Name(answer.status)


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService", "tiny"])
def test_the_server_its_service_and_its_models_can_be_checked(channel: Any, service: str) -> None:
    assert check(channel, service) == "SERVING"


def test_a_check_of_what_is_not_there_is_not_found(channel: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        check(channel, "other")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(("service", "status"), [("", "SERVING"), ("other", "SERVICE_UNKNOWN")])
def test_a_watcher_is_told_at_once_and_stays(channel: Any, service: str, status: str) -> None:
    call = channel.unary_stream("/grpc.health.v1.Health/Watch")(
        REQUEST(service=service).SerializeToString(), timeout=PATIENCE_S
    )
    assert RESPONSE.ServingStatus.Name(RESPONSE.FromString(next(call)).status) == status
    assert call.is_active()
    call.cancel()


def test_a_method_that_is_not_there_is_unimplemented(channel: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/grpc.health.v1.Health/Guess")(b"", timeout=PATIENCE_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
