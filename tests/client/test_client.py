"""The clients against a real server, over both protocols, blocking and asynchronous."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hasten.client
from hasten.bundle.read import open_bundle
from hasten.client import AsyncClient, Retry
from hasten.errors import DataError, RequestError, UsageError
from hasten.serve.config import LaneTable
from hasten.serve.plan import Rules
from hasten.serve.server import Front, Options, Running, serve_bundle
from hasten.serve.telemetry import Telemetry
from hasten.spec.event import Event, Served

pytest.importorskip("grpc", reason="the gRPC client comes with the client extra")

ONCE = Retry(most=0)
PROTOCOLS = ["http", "grpc"]
STYLES = ["blocking", "asynchronous"]


def url(server: Running, protocol: str) -> str:
    return server.url if protocol == "http" else f"grpc://{server.grpc}"


def ask(style: str, address: str, what: Callable[[Any], Any], **options: Any) -> Any:
    """Call one method on a client of either style; `what` returns the value or what to await for it."""
    if style == "blocking":
        with hasten.client.connect(address, **options) as client:
            return what(client)

    async def main() -> Any:
        async with hasten.client.connect_async(address, **options) as client:
            return await what(client)

    return asyncio.run(main())


@pytest.fixture(scope="module")
def golden(small_bundle: Path) -> Any:
    bundle = open_bundle(small_bundle)
    return bundle.golden(bundle.manifest.picked)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_client_gets_the_model_s_answer(server: Running, golden: Any, protocol: str, style: str) -> None:
    outputs = ask(style, url(server, protocol), lambda client: client.infer("linear", golden.inputs[0], id="7"))
    assert outputs.keys() == golden.outputs[0].keys()
    for name, array in golden.outputs[0].items():
        np.testing.assert_allclose(outputs[name], array, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_client_learns_what_a_model_takes_and_whether_it_is_ready(
    server: Running, small_bundle: Path, protocol: str, style: str
) -> None:
    address, manifest = url(server, protocol), open_bundle(small_bundle).manifest
    signature = ask(style, address, lambda client: client.signature("linear"))
    assert [spec.name for spec in signature.inputs] == [spec.name for spec in manifest.signature.inputs]
    assert [spec.dtype for spec in signature.outputs] == [spec.dtype for spec in manifest.signature.outputs]
    assert ask(style, address, lambda client: client.ready())
    assert ask(style, address, lambda client: client.ready("linear"))
    assert not ask(style, address, lambda client: client.ready("other"))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("model", "x", "options", "code"),
    [
        ("other", np.zeros((1, 4), np.float32), {}, "not_found"),
        ("linear", np.zeros((1, 4), np.float32), {"version": "2"}, "not_found"),
        ("linear", np.zeros((1, 4)), {}, "invalid"),
        ("linear", np.zeros((1, 5), np.float32), {}, "invalid"),
        ("linear", np.zeros((1, 4), np.float32), {"outputs": ["q"]}, "invalid"),
    ],
)
def test_a_refusal_has_the_same_code_over_either_protocol(
    server: Running, protocol: str, style: str, model: str, x: Any, options: dict[str, Any], code: str
) -> None:
    with pytest.raises(RequestError) as caught:
        ask(style, url(server, protocol), lambda client: client.infer(model, {"x": x}, **options))
    assert caught.value.code == code


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_threads_may_share_a_client(server: Running, golden: Any, protocol: str) -> None:
    with hasten.client.connect(url(server, protocol)) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.infer("linear", golden.inputs[0]), range(64)))
    for outputs in answers:
        for name, array in golden.outputs[0].items():
            np.testing.assert_allclose(outputs[name], array, rtol=1e-3, atol=1e-3)


@contextmanager
def frozen(bundle: Path) -> Generator[Running]:
    """A server whose engine takes work and gives none back, and whose queue holds one request."""
    front = Front(grpc=("127.0.0.1", 0))
    with serve_bundle(open_bundle(bundle), Options(rules=Rules(queue_capacity=1), front=front)) as running:
        pid = running.services["linear"].engine_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            yield running
        finally:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_deadline_ends_a_call_that_hangs(small_bundle: Path, protocol: str, style: str) -> None:
    x = {"x": np.zeros((1, 4), np.float32)}
    with frozen(small_bundle) as server, pytest.raises(RequestError) as caught:
        ask(style, url(server, protocol), lambda client: client.infer("linear", x, timeout_s=0.3))
    # The server's alarm and the client's own clock race.
    assert caught.value.code in ("deadline", "timeout")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shed_load_is_told_with_the_time_to_come_back(small_bundle: Path, protocol: str) -> None:
    x = {"x": np.zeros((1, 4), np.float32)}

    async def main(address: str) -> list[Any]:
        async with hasten.client.connect_async(address, retry=ONCE) as client:
            calls: list[Awaitable[Any]] = [client.infer("linear", x, timeout_s=2) for _ in range(6)]
            return await asyncio.gather(*calls, return_exceptions=True)

    with frozen(small_bundle) as server:
        errors = asyncio.run(main(url(server, protocol)))
    shed = [error for error in errors if isinstance(error, RequestError) and error.code == "overloaded"]
    assert len(shed) == 4
    assert all(error.retry_after_s is not None and error.retry_after_s > 0 for error in shed)


def test_a_cancelled_caller_leaves_the_connection_to_nobody(server: Running, golden: Any) -> None:
    async def main() -> Any:
        client: AsyncClient
        async with hasten.client.connect_async(server.url) as client:
            call = asyncio.ensure_future(client.infer("linear", golden.inputs[0]))
            await asyncio.wait([call], timeout=0.0)
            call.cancel()
            return await client.infer("linear", golden.inputs[0])

    assert asyncio.run(main()).keys() == golden.outputs[0].keys()


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://h/v2/models/m", "http://h:x"]
)
def test_what_is_no_server_is_refused_with_what_to_write(address: str) -> None:
    with pytest.raises(UsageError, match="http://HOST:PORT"):
        hasten.client.connect(address)


def test_an_array_that_cannot_be_sent_is_refused_before_it_is(server: Running) -> None:
    with hasten.client.connect(server.url) as client, pytest.raises(DataError, match="complex"):
        client.infer("linear", {"x": np.zeros((1, 4), complex)})


LANES = (LaneTable(name="critical"), LaneTable(name="usual"))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_request_goes_in_the_lane_that_it_names_and_the_answer_names_its_variant(
    small_bundle: Path, golden: Any, protocol: str, style: str
) -> None:
    told: list[Event] = []
    options: list[dict[str, Any]] = [{"lane": "critical"}, {"priority": 1}, {"lane": "usual", "priority": 1}, {}]
    front, telemetry = Front(grpc=("127.0.0.1", 0)), Telemetry(sink=told.append)
    with serve_bundle(
        open_bundle(small_bundle), Options(rules=Rules(lanes=LANES), front=front, telemetry=telemetry)
    ) as server:
        address, x = url(server, protocol), golden.inputs[0]
        answers = [ask(style, address, lambda client, o=one: client.infer("linear", x, **o)) for one in options]
        with pytest.raises(RequestError, match="critical") as caught:
            ask(style, address, lambda client: client.infer("linear", x, lane="none"))
    assert [event.lane for event in told if isinstance(event, Served)] == ["critical", "critical", "usual", "usual"]
    assert {answer.variant for answer in answers} == {open_bundle(small_bundle).manifest.picked}
    assert caught.value.code == "invalid"


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("lane", ["a b", "a\r\nauthorization: b", "\xe9", ".a", "a" * 65])
def test_what_no_lane_can_be_called_is_sent_nowhere(style: str, lane: str) -> None:
    x = {"x": np.zeros((1, 4), np.float32)}
    with pytest.raises(UsageError, match="no name of a lane"):
        ask(style, "http://127.0.0.1:1", lambda client: client.infer("linear", x, lane=lane))
