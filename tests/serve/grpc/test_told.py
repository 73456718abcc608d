"""What observers are told of calls over gRPC: the same as of requests over HTTP."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hasten.bundle.read import Bundle
from hasten.serve.access import Access, Scope
from hasten.serve.server import Front, Options, serve_bundle
from hasten.serve.telemetry import Telemetry
from hasten.spec.event import NO_MODEL, UNKNOWN_MODEL, Event, Ran, Refused, Served

triton = pytest.importorskip("tritonclient.grpc", reason="an independent client judges the server")

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def tensor(columns: int = 4) -> list[Any]:
    x = np.ones((2, columns), np.float32)
    one = triton.InferInput("x", list(x.shape), "FP32")
    one.set_data_from_numpy(x)
    return [one]


def test_every_call_ends_in_one_event_with_its_sizes_and_ids(bundle: Bundle) -> None:
    told: list[Event] = []
    with (
        serve_bundle(
            bundle, Options(telemetry=Telemetry(sink=told.append), front=Front(grpc=("127.0.0.1", 0)))
        ) as server,
        triton.InferenceServerClient(server.grpc) as client,
    ):
        client.infer("tiny", tensor(), headers={"x-request-id": "mine:1", "traceparent": TRACE})
        for model, columns in (("tiny", 5), ("nobody", 4)):
            with pytest.raises(triton.InferenceServerException):
                client.infer(model, tensor(columns))
    [served] = [event for event in told if isinstance(event, Served)]
    assert (served.transport, served.request_id, served.trace, served.rows) == ("grpc", "mine:1", TRACE, 2)
    assert min(served.bytes_in, served.bytes_out, served.wire_s, served.engine_s) > 0
    refused = [(event.model, event.code) for event in told if isinstance(event, Refused)]
    assert refused == [("tiny", "invalid"), (UNKNOWN_MODEL, "not_found")]
    assert [event.requests for event in told if isinstance(event, Ran)] == [1]


def test_requests_of_a_stream_are_told_one_by_one(bundle: Bundle) -> None:
    told: list[Event] = []
    answers: list[Any] = []
    with (
        serve_bundle(
            bundle, Options(telemetry=Telemetry(sink=told.append), front=Front(grpc=("127.0.0.1", 0)))
        ) as server,
        triton.InferenceServerClient(server.grpc) as client,
    ):
        client.start_stream(lambda result, error: answers.append(error or result))
        for columns in (4, 5, 4):
            client.async_stream_infer("tiny", tensor(columns))
        client.stop_stream()
    assert len(answers) == 3
    ends = sorted(type(event).__name__ for event in told if isinstance(event, Served | Refused))
    assert ends == ["Refused", "Served", "Served"]


def test_who_is_not_let_in_is_told_too(bundle: Bundle) -> None:
    told: list[Event] = []
    front = Front(grpc=("127.0.0.1", 0), access=Access({Scope.INFER: ["a-token-of-a-test"]}))
    with (
        serve_bundle(bundle, Options(telemetry=Telemetry(sink=told.append), front=front)) as server,
        triton.InferenceServerClient(server.grpc) as client,
        pytest.raises(triton.InferenceServerException),
    ):
        client.infer("tiny", tensor())
    assert [(e.model, e.code, e.transport) for e in told if isinstance(e, Refused)] == [
        (NO_MODEL, "unauthenticated", "grpc")
    ]


def test_calls_beside_inference_that_fail_are_told_and_those_that_do_not_are_not(bundle: Bundle) -> None:
    told: list[Event] = []
    with (
        serve_bundle(
            bundle, Options(telemetry=Telemetry(sink=told.append), front=Front(grpc=("127.0.0.1", 0)))
        ) as server,
        triton.InferenceServerClient(server.grpc) as client,
    ):
        assert client.is_server_live() and client.get_model_metadata("tiny")
        for model, version in (("nobody", ""), ("tiny", "7")):
            with pytest.raises(triton.InferenceServerException):
                client.get_model_config(model, version)
    refused = [(event.model, event.code) for event in told if isinstance(event, Refused)]
    assert refused == [(UNKNOWN_MODEL, "not_found"), ("tiny", "not_found")]
    assert not [event for event in told if isinstance(event, Served)]
