"""How often who may: the guard alone, and over HTTP and gRPC at once."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from hasten.bundle.read import Bundle
from hasten.errors import RequestError
from hasten.serve.access import Access, Caller, Operation, Scope
from hasten.serve.guard import Guard
from hasten.serve.rate import Rate
from hasten.serve.server import Front, Options, Running, serve_bundle
from hasten.serve.telemetry import Telemetry
from hasten.spec.event import NO_MODEL, Event, Refused
from hasten.testing import ManualClock

ONE, OTHER = "one-token-of-a-test", "other-token-of-a-test"
TOKENS = {Scope.INFER: [ONE, OTHER], Scope.METRICS: [ONE]}
# So slow that nothing comes back while a test runs.
TWICE = Rate(requests_per_s=1e-3, burst=2)
X = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}


def verdict(guard: Guard, operation: Operation, token: str) -> str:
    try:
        guard.decide(operation, token and f"Bearer {token}")
    except RequestError as error:
        return error.code
    return "allowed"


def test_each_token_has_an_allowance_of_its_own_however_it_is_written() -> None:
    clock = ManualClock()
    guard = Guard(Access(TOKENS), Rate(requests_per_s=2, burst=1), clock.now)
    guard.decide(Operation.INFER, f"Bearer {ONE}")
    with pytest.raises(RequestError, match="Too many requests") as caught:
        guard.decide(Operation.STATISTICS, f"bearer   {ONE} ")
    assert (caught.value.code, caught.value.retry_after_s) == ("rate_limited", 0.5)
    assert verdict(guard, Operation.INFER, OTHER) == "allowed"
    clock.advance(0.5)
    assert verdict(guard, Operation.INFER, ONE) == "allowed"


def test_probes_and_refusals_cost_nothing() -> None:
    guard = Guard(Access(TOKENS), TWICE)
    for _ in range(5):
        assert verdict(guard, Operation.LIVE, ONE) == "allowed"
        assert verdict(guard, Operation.STATISTICS, OTHER) == "forbidden"
        assert verdict(guard, Operation.LOAD, ONE) == "not_found"
        assert verdict(guard, Operation.INFER, "wrong-token-of-a-test") == "unauthenticated"
    assert [verdict(guard, Operation.INFER, OTHER) for _ in range(3)] == ["allowed", "allowed", "rate_limited"]


def test_without_tokens_all_clients_are_one_whatever_they_show() -> None:
    guard = Guard(Access(), TWICE)
    assert [verdict(guard, Operation.INFER, token) for token in ("", ONE, OTHER)] == ["allowed"] * 2 + ["rate_limited"]


def test_a_certificate_has_an_allowance_of_its_own_where_nobody_needs_a_token() -> None:
    one, other = (Caller(tenant=name, client=name) for name in ("CN=one", "CN=other"))
    guard = Guard(Access(), TWICE, tenants={"CN=other": Rate(requests_per_s=1e-3, burst=3)})
    assert [allowed(guard, one) for _ in range(3)] == [True, True, False]
    assert [allowed(guard, other) for _ in range(4)] == [True, True, True, False]
    assert guard.decide(Operation.LIVE, None, one) == one


def test_a_token_goes_before_the_certificate_beside_it() -> None:
    guard = Guard(Access(TOKENS, callers={ONE: Caller(tenant="acme")}), TWICE)
    assert guard.decide(Operation.INFER, f"Bearer {ONE}", Caller(tenant="CN=one", client="CN=one")).tenant == "acme"
    with pytest.raises(RequestError, match="needs a token"):
        guard.decide(Operation.INFER, None, Caller(tenant="CN=one", client="CN=one"))


def test_all_tokens_of_a_tenant_share_the_rate_that_is_its_own() -> None:
    acme = {token: Caller(tenant="acme") for token in (ONE, OTHER)}
    shared = Guard(Access(TOKENS, callers=acme), tenants={"acme": TWICE})
    assert [verdict(shared, Operation.INFER, token) for token in (ONE, OTHER, ONE)] == ["allowed"] * 2 + [
        "rate_limited"
    ]
    apart = Guard(Access(TOKENS, callers=acme), TWICE)
    assert [verdict(apart, Operation.INFER, token) for token in (ONE, OTHER) * 2] == ["allowed"] * 4


def allowed(guard: Guard, peer: Caller) -> bool:
    try:
        guard.decide(Operation.INFER, None, peer)
    except RequestError:
        return False
    return True


def ask(server: Running, token: str) -> tuple[int, Any, str | None]:
    client = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    try:
        body = json.dumps({"inputs": [X]})
        client.request("POST", "/v2/models/tiny/infer", body, {"Authorization": f"Bearer {token}"})
        answer = client.getresponse()
        return answer.status, json.loads(answer.read()), answer.getheader("retry-after")
    finally:
        client.close()


def test_one_allowance_for_http_and_grpc_and_each_request_of_a_stream(bundle: Bundle) -> None:
    triton = pytest.importorskip("tritonclient.grpc", reason="an independent client judges the server")
    x = triton.InferInput("x", [1, 4], "FP32")
    x.set_data_from_numpy(np.ones((1, 4), np.float32))
    told: list[Event] = []
    front = Front(grpc=("127.0.0.1", 0), access=Access(TOKENS), rate=Rate(requests_per_s=1e-3, burst=3))
    streamed: list[Any] = []
    with (
        serve_bundle(bundle, Options(front=front, telemetry=Telemetry(sink=told.append))) as server,
        triton.InferenceServerClient(server.grpc) as client,
    ):
        headers = {"authorization": f"Bearer {ONE}"}
        assert ask(server, ONE)[0] == 200
        client.start_stream(lambda result, error: streamed.append(error), headers=headers)
        for _ in range(3):
            client.async_stream_infer("tiny", [x])
        client.stop_stream()
        with pytest.raises(triton.InferenceServerException, match="RESOURCE_EXHAUSTED"):
            client.infer("tiny", [x], headers=headers)
        status, answer, retry_after = ask(server, ONE)
        assert ask(server, OTHER)[0] == 200
    assert [error is None for error in streamed] == [True, True, False]
    assert (status, answer["code"]) == (429, "rate_limited")
    assert retry_after is not None and 900 < int(retry_after) <= 1000
    refused = [(event.code, event.transport) for event in told if isinstance(event, Refused)]
    assert refused == [("rate_limited", "grpc"), ("rate_limited", "grpc"), ("rate_limited", "http")]
    assert NO_MODEL in {event.model for event in told if isinstance(event, Refused)}
