"""Overload at the real server, by real clients over HTTP and gRPC: bounds, deadlines, lanes, ladder, scaling.

The engine is held still where something has to happen while it is busy. Names in brackets are rows of the project's
list of faults.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from tests.serve.engines import with_variants

from hasten.bundle.read import Bundle
from hasten.observe.prometheus import Metrics
from hasten.serve import warmup
from hasten.serve.access import Access, Caller, Scope
from hasten.serve.config import LaneTable, ModelTable, Scheduling
from hasten.serve.plan import Rules
from hasten.serve.server import Front, Options, Running, serve_bundle
from hasten.serve.service import ModelService
from hasten.serve.telemetry import Telemetry
from hasten.spec.event import Event, LevelChanged, Ran, Refused, Served
from hasten.spec.variant import REFERENCE
from hasten.wire.oip_client import encode_request

grpc = pytest.importorskip("grpc", reason="gRPC's own library calls the server")
pb = pytest.importorskip("tritonclient.grpc.service_pb2", reason="an independent client's messages")

WITHIN_S = 30.0
METHOD = "/inference.GRPCInferenceService/ModelInfer"
LANES = (LaneTable(name="critical"), LaneTable(name="standard"), LaneTable(name="background", background=True))


@dataclass
class Reply:
    """What a client got: the status by HTTP's or gRPC's name, the variant, the error, and when to come back."""

    status: str
    variant: str = ""
    message: str = ""
    again: str | None = None


@dataclass
class World:
    """A server, clients of it, and what it told."""

    server: Running
    clients: ThreadPoolExecutor
    told: list[Event] = field(default_factory=list[Event])

    @property
    def service(self) -> ModelService:
        return self.server.services["tiny"]

    def ask(self, transport: str = "http", rows: int = 1, **options: Any) -> Future[Reply]:
        """Ask on a thread of its own."""
        return self.clients.submit(over_grpc if transport == "grpc" else over_http, self.server, rows, **options)

    def ask_many(self, count: int, transport: str = "http", **options: Any) -> list[Future[Reply]]:
        """Ask so many times, and return when all of them wait in the queue."""
        before = self.waiting
        asked = [self.ask(transport, **options) for _ in range(count)]
        wait_until(lambda: self.waiting == before + count)
        return asked

    @property
    def waiting(self) -> int:
        return len(self.service.driver.core.lanes)

    @contextmanager
    def held(self) -> Generator[Future[Reply]]:
        """The first engine runs a request and is not done with it before the block ends."""
        pid = self.service.engine_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            first = self.ask()
            wait_until(self.service.driver.core.is_busy)
            yield first
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]

    def page(self) -> str:
        return call(self.server, "GET", "/metrics")[1].decode()


@pytest.fixture
def unknown_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ran before there were requests tells nothing: a row is taken for 10 ms, and few rows are much work."""
    monkeypatch.setattr(warmup.Stopwatch, "found", lambda self: [])


@contextmanager
def serving(bundle: Bundle, rules: Rules | None = None, access: Access | None = None) -> Generator[World]:
    metrics, told = Metrics(), []

    def sink(event: Event) -> None:
        metrics(event)
        told.append(event)

    front = Front(grpc=("127.0.0.1", 0), **({"access": access} if access else {}))
    with (
        ThreadPoolExecutor(64) as clients,
        serve_bundle(
            bundle, Options(rules=rules or Rules(), front=front, telemetry=Telemetry(sink=sink, page=metrics.page))
        ) as server,
    ):
        yield World(server, clients, told)


def call(server: Running, method: str, path: str, body: str | None = None, **headers: str) -> tuple[Any, bytes]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=WITHIN_S)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def over_http(
    server: Running, rows: int, *, lane: str = "", token: str = "", parameters: dict[str, Any] | None = None
) -> Reply:
    tensor = {"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": [1.0] * 4 * rows}
    headers = {"hasten-lane": lane} if lane else {}
    if token:
        headers["authorization"] = f"Bearer {token}"
    body = json.dumps({"inputs": [tensor], "parameters": parameters or {}})
    response, answer = call(server, "POST", "/v2/models/tiny/infer", body, **headers)
    document = json.loads(answer)
    return Reply(
        str(response.status),
        document.get("parameters", {}).get("variant", ""),
        document.get("error", ""),
        response.getheader("retry-after"),
    )


def over_grpc(server: Running, rows: int, *, lane: str = "", parameters: dict[str, int] | None = None) -> Reply:
    message = pb.ModelInferRequest(
        model_name="tiny",
        inputs=[{"name": "x", "datatype": "FP32", "shape": [rows, 4], "contents": {"fp32_contents": [1.0] * 4 * rows}}],
        parameters={name: pb.InferParameter(int64_param=value) for name, value in (parameters or {}).items()},
    )
    with grpc.insecure_channel(server.grpc) as channel:
        infer = channel.unary_unary(METHOD, pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString)
        try:
            answer = infer(message, timeout=WITHIN_S, metadata=[("hasten-lane", lane)] if lane else [])
        except grpc.RpcError as error:
            trailers = dict(error.trailing_metadata())
            again = trailers.get("grpc-retry-pushback-ms")
            return Reply(error.code().name, message=error.details(), again=again)
    return Reply("OK", answer.parameters["variant"].string_param)


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not reached():
        assert time.monotonic() < deadline, f"not within {WITHIN_S:g} s"


def statuses(replies: Sequence[Future[Reply]]) -> Counter[str]:
    return Counter(reply.result(WITHIN_S).status for reply in replies)


def test_a_crowd_is_refused_before_anybody_looks_at_its_data_and_each_counts_once(bundle: Bundle) -> None:
    body, headers = encode_request({"x": np.ones((1, 4), np.float32)}, bundle.manifest.signature)
    with serving(bundle, Rules(queue_capacity=1)) as world:
        connection = http.client.HTTPConnection(urlsplit(world.server.url).netloc, timeout=WITHIN_S)

        def ask() -> tuple[int, str, bytes]:
            connection.request("POST", "/v2/models/tiny/infer", body, headers)
            response = connection.getresponse()
            return response.status, response.headers.get("retry-after", ""), response.read()

        assert ask()[0] == 200
        with world.held() as first:
            [second] = world.ask_many(1)
            answers = [ask() for _ in range(5)]
            assert world.service.driver.is_crowded
        assert [first.result().status, second.result().status, ask()[0]] == ["200", "200", 200]
        connection.close()
    assert {(status, again) for status, again, _ in answers} == {(429, "1")}
    assert {text for *_, text in answers} == {b'{"error":"The queue is full.","code":"overloaded"}'}
    assert [(event.code, event.bytes_in) for event in world.of(Refused)] == [("overloaded", len(body))] * 5


@pytest.mark.parametrize(
    ("transport", "refusal", "good"), [("http", "429", "200"), ("grpc", "RESOURCE_EXHAUSTED", "OK")]
)
def test_beyond_its_capacity_a_queue_refuses_exactly_the_rest_and_says_when_to_come_back(
    bundle: Bundle, transport: str, refusal: str, good: str
) -> None:
    """[R9]"""
    capacity = 4
    with serving(bundle, Rules(queue_capacity=capacity)) as world:
        with world.held() as first:
            asked = [world.ask(transport) for _ in range(capacity + 10)]
            # The engine is still: whatever ends now is refused.
            ended = as_completed(asked, timeout=WITHIN_S)
            refused = [next(ended).result() for _ in range(10)]
            assert {reply.status for reply in refused} == {refusal}
            assert all(int(reply.again or 0) > 0 for reply in refused)
            assert world.waiting == capacity
        assert first.result(WITHIN_S).status == "200"
        assert statuses(asked) == {refusal: 10, good: capacity}


def test_three_times_what_fits_ends_in_answers_and_refusals_and_leaves_nothing_behind(bundle: Bundle) -> None:
    """[R10] How much goodput is left is measured by the benchmark of overload."""
    with serving(bundle, Rules(queue_capacity=20)) as world:
        with world.held() as first:
            world.ask_many(20)
            late = [world.ask() for _ in range(40)]
            assert statuses(late) == {"429": 40}
        assert first.result(WITHIN_S).status == "200"
        wait_until(lambda: len(world.of(Served)) == 21)
        assert world.ask().result(WITHIN_S).status == "200"
        page = world.page()
        assert 'hasten_queue_requests{lane="default",model="tiny",variant="reference",version="1"} 0.0' in page
        assert 'hasten_refusals_total{lane="default",model="tiny",reason="overloaded"} 40.0' in page
        assert sum(event.requests for event in world.of(Ran)) == 22


def test_what_expires_in_the_queue_is_never_run(bundle: Bundle) -> None:
    """[R11]"""
    with serving(bundle) as world:
        with world.held() as first:
            late = [world.ask(way, parameters={"timeout": 1000}) for way in ("http", "grpc") for _ in range(5)]
            assert statuses(late) == {"504": 5, "DEADLINE_EXCEEDED": 5}
            wait_until(lambda: not world.waiting)
        assert first.result(WITHIN_S).status == "200"
        assert world.ask().result(WITHIN_S).status == "200"
        assert [event.requests for event in world.of(Ran)] == [1, 1]


def test_urgent_requests_pass_a_saturated_lane_and_do_not_starve_it(bundle: Bundle) -> None:
    """[R12]"""
    lanes = (LaneTable(name="high"), LaneTable(name="low", min_share=0.05, background=True))
    rules = Rules(lanes=lanes, scheduling=Scheduling(default_lane="low"))
    with serving(with_variants(bundle, {REFERENCE: (1.0, 0.9)}, max_batch=1), rules) as world:
        with world.held() as first:
            low = world.ask_many(20)
            high = [*world.ask_many(3, lane="high"), *world.ask_many(3, "grpc", parameters={"priority": 1})]
        assert statuses([first, *low, *high]) == {"200": 24, "OK": 3}
        order = [event.lane for event in world.of(Served)]
        # What ran already, the six, and one batch between them that the low lane was owed.
        assert order.count("high") == 6
        assert "high" not in order[8:]
        assert order[8:] == ["low"] * 19


def test_a_lane_or_a_priority_that_is_not_there_is_refused_with_those_that_are(bundle: Bundle) -> None:
    with serving(bundle, Rules(lanes=LANES)) as world:
        for transport, code in (("http", "400"), ("grpc", "INVALID_ARGUMENT")):
            for options in ({"lane": "none"}, {"parameters": {"priority": 9}}):
                reply = world.ask(transport, **options).result(WITHIN_S)
                assert reply.status == code
                assert "critical (priority 1), standard (priority 2), background" in reply.message
        assert world.ask(lane="background").result(WITHIN_S).status == "200"
        assert world.ask().result(WITHIN_S).status == "200"
        wait_until(lambda: len(world.of(Served)) == 2)
        assert [event.lane for event in world.of(Served)] == ["background", "standard"]
        # Names that clients make up are no labels.
        page = world.page()
        assert 'hasten_refusals_total{lane="",model="tiny",reason="invalid"} 4.0' in page
        assert "none" not in {line.partition('lane="')[2].partition('"')[0] for line in page.splitlines()}


def test_a_tenant_fills_its_own_places_only_and_its_token_bounds_its_urgency(bundle: Bundle) -> None:
    tokens = {"one": "a-token-of-the-first", "same": "one-more-of-the-first", "two": "a-token-of-the-second"}
    callers = {tokens["one"]: Caller(tenant="one"), tokens["same"]: Caller(tenant="one", lane="background")}
    access = Access({Scope.INFER: tokens.values(), Scope.METRICS: ["a-token-for-metrics"]}, callers=callers)
    rules = Rules(lanes=LANES, scheduling=Scheduling(tenant_capacity=2))
    with serving(bundle, rules, access) as world:
        pid = world.service.engine_pid
        assert pid is not None
        assert world.ask(token=tokens["same"], lane="critical").result(WITHIN_S).status == "403"
        os.kill(pid, signal.SIGSTOP)
        running = world.ask(token=tokens["two"])
        wait_until(world.service.driver.core.is_busy)
        waiting = [*world.ask_many(1, token=tokens["one"]), *world.ask_many(1, token=tokens["same"])]
        refused = world.ask(token=tokens["one"]).result(WITHIN_S)
        assert (refused.status, refused.message) == ("429", "Too many requests of this tenant are waiting.")
        waiting += world.ask_many(2, token=tokens["two"])
        os.kill(pid, signal.SIGCONT)
        assert statuses([running, *waiting]) == {"200": 5}
        wait_until(lambda: len(world.of(Served)) == 5)
        assert Counter(event.lane for event in world.of(Served)) == {"standard": 4, "background": 1}


@pytest.mark.usefixtures("unknown_times")
def test_under_load_a_cheaper_variant_answers_and_says_so_until_there_was_calm(bundle: Bundle) -> None:
    """[R13] How long calm lasts is tested in simulated time."""
    lanes = (LaneTable(name="exact", accuracy_floor=0.9), LaneTable(name="usual"))
    rules = Rules(lanes=lanes, scheduling=Scheduling(ladder=True, window_s=0.05, calm_s=0.3, settle_s=0.3))
    with serving(with_variants(bundle, {REFERENCE: (8.0, 0.9), "small": (2.0, 0.8)}), rules) as world:
        with world.held() as first:
            # Nothing has been learned yet: eight rows are taken for 80 ms.
            asked = [world.ask(transport, rows=8) for transport in ("http", "grpc") for _ in range(6)]
            wait_until(lambda: world.waiting == 12 and world.service.gauges().level == 1)
            assert "hasten_model_level" in world.page()
            exact = world.ask_many(2, lane="exact")
        assert first.result(WITHIN_S).variant == REFERENCE
        assert {reply.result(WITHIN_S).variant for reply in asked} == {"small"}
        assert {reply.result(WITHIN_S).variant for reply in exact} == {REFERENCE}
        wait_until(lambda: world.service.gauges().level == 0)
        assert world.ask().result(WITHIN_S).variant == REFERENCE
        # The engine was learned to be slow, so that the last request may have moved the level again.
        moves = [(event.before, event.after, event.variant) for event in world.of(LevelChanged)]
        assert moves[:2] == [(0, 1, "small"), (1, 0, REFERENCE)]
        assert Counter(event.variant for event in world.of(Served))["small"] == 12
        page = world.page()
        assert 'hasten_level_changes_total{direction="up",model="tiny"} 1.0' in page
        assert 'hasten_batch_rows_sum{model="tiny",variant="small",version="1"} 96.0' in page


@pytest.mark.usefixtures("unknown_times")
def test_instances_come_with_the_load_and_go_with_it(bundle: Bundle) -> None:
    rules = Rules(
        scheduling=Scheduling(window_s=0.05, idle_s=0.2), models={"tiny": ModelTable(min_instances=1, max_instances=2)}
    )
    with serving(with_variants(bundle, {REFERENCE: (1.0, 0.9)}), rules) as world:
        assert world.service.gauges().instances == 1
        with world.held() as first:
            asked = [world.ask(rows=8) for _ in range(6)]
            # The first engine is still: only a second one can answer.
            assert statuses(asked) == {"200": 6}
            assert {event.instance for event in world.of(Ran)} == {1}
        assert first.result(WITHIN_S).status == "200"
        wait_until(lambda: world.service.gauges().instances == world.service.gauges().instances_up == 1)
        assert world.ask().result(WITHIN_S).status == "200"
