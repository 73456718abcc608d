"""Answers on their way to clients that read slowly, or not at all."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import ngh2
import numpy as np
import pytest
from tests.serve.grpc.scenes import ECHOES, HOLD, TALK, Backend, Client, framed, play

from hasten.bundle.read import Bundle
from hasten.errors import RequestError
from hasten.serve.grpc.hub import Hub
from hasten.serve.grpc.limits import GrpcLimits
from hasten.serve.server import Front, Options, serve_bundle
from hasten.wire.grpc_framing import GRPC_STATUS


def test_a_large_answer_waits_for_a_client_with_a_small_window_and_holds_nobody_up() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        body = bytes(range(256)) * 3000
        stream = client.call(framed(body))
        await client.until(lambda: len(client.replies[stream].body) == 2**16)
        assert (await client.ask(framed(b"on"))).message == b"on"
        reply = await client.read(stream)
        assert (reply.status, reply.message) == (0, body)

    play(scene, window=2**16)


class Overheard(asyncio.Transport):
    """Notes how often the system is called to write."""

    def __init__(self, inner: asyncio.Transport) -> None:
        self.inner = inner
        self.calls: list[int] = []

    def write(self, data: bytes) -> None:
        self.writelines([data])

    def writelines(self, list_of_data: Iterable[bytes]) -> None:
        pieces = list(list_of_data)
        self.calls.append(sum(map(len, pieces)))
        self.inner.writelines(pieces)


@pytest.mark.parametrize(("size", "calls"), [(600_000, 1), (2**20 + 1, 2)])
def test_a_large_answer_leaves_by_one_call_for_each_mebibyte(size: int, calls: int) -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        stream = client.call(framed(b""), HOLD)
        await client.until_held(backend)
        [connection] = hub._connections
        connection._writer.transport = heard = Overheard(connection._writer.transport)
        backend.held[0].reply([bytes(size)])
        connection._writer.transport = heard.inner
        assert len(heard.calls) == calls and sum(heard.calls) > size
        assert (await client.reply(stream)).message == bytes(size)

    play(scene, window=2**24)


def test_a_large_answer_that_a_client_resets_disturbs_nobody_else() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        stream = client.call(framed(bytes(700_000)))
        await client.until(lambda: len(client.replies[stream].body) > 0)
        client.http.reset_stream(stream)
        reply = await client.ask(framed(bytes(60_000)))
        assert (reply.status, reply.message) == (0, bytes(60_000))

    play(scene, window=2**16)


def test_shed_load_says_when_to_come_back() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        stream = client.call(framed(b""), HOLD)
        await client.until_held(backend)
        backend.held[0].finish(RequestError("The queue is full: 100 %.", code="overloaded", retry_after_s=0.0124))
        reply = await client.reply(stream)
        assert reply.status == GRPC_STATUS["overloaded"]
        assert reply.headers[b"grpc-retry-pushback-ms"] == b"13"
        assert reply.headers[b"grpc-message"] == b"The queue is full: 100 %25."

    play(scene)


def test_a_client_that_does_not_read_a_stream_is_not_read_from_until_it_does() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        stream = client.begin(ECHOES)
        client.http.send_data(stream, framed(bytes(9_995)) * 100, end_stream=True)
        await client.ask(framed(b""))
        await client.ask(framed(b""))
        # One window full at the client, 50,000 bytes here, and one answer that found room before it was too much.
        assert backend.echoed <= (2**16 + 50_000) // 10_000 + 1
        reply = await client.read(stream)
        assert (reply.status, reply.body) == (0, framed(bytes(9_995)) * 100)

    play(scene, limits=GrpcLimits(stream_hold=50_000), window=2**16)


def test_a_stream_with_too_much_unread_is_ended_and_only_it() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        reply = await client.ask(framed(bytes(10_000)), TALK)
        # gRPC's mapping of HTTP/2 errors makes RESOURCE_EXHAUSTED of it.
        assert reply.reset == ngh2.ErrorCode.ENHANCE_YOUR_CALM
        assert len(reply.body) <= 2**16
        assert (await client.ask(framed(b"on"))).message == b"on"

    play(scene, limits=GrpcLimits(stream_end=200_000), window=2**16)


def test_a_stream_whose_answers_stay_unread_is_ended_in_time() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        stream = client.begin(ECHOES)
        client.http.send_data(stream, framed(bytes(100_000)))
        await client.ask(framed(b""))
        now = asyncio.get_running_loop().time()
        hub.sweep(now)
        hub.sweep(now + 59)
        await client.ask(framed(b""))
        assert client.replies[stream].reset is None
        hub.sweep(now + 61)
        assert (await client.reply(stream)).reset == ngh2.ErrorCode.ENHANCE_YOUR_CALM

    play(scene, window=2**16)


def test_a_client_that_reads_nothing_at_all_loses_its_connection_in_time() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        client.begin(ECHOES)
        await client.ask(framed(b""))
        [connection] = hub._connections
        connection.pause_writing()
        now = asyncio.get_running_loop().time()
        hub.sweep(now + 59)
        assert len(hub) == 1
        hub.sweep(now + 61)
        assert len(hub) == 0

    play(scene)


def test_answers_count_for_all_clients_together_until_they_are_read() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        first, second = client.call(framed(bytes(100_000))), client.call(framed(bytes(100_000)))
        await client.until(lambda: len(client.replies[second].body) == 2**16)
        assert hub.unread.much
        await client.read(first)
        assert not hub.unread.much
        await client.read(second)
        assert hub.unread.bytes == 0

    play(scene, most_unread=50_000, window=2**16)


def test_answers_count_no_more_when_their_call_is_reset_or_their_client_is_gone() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        streams = [client.call(framed(bytes(100_000))) for _ in range(2)]
        await client.until(lambda: len(client.replies[streams[1]].body) == 2**16)
        left = hub.unread.bytes
        client.http.reset_stream(streams[0])
        await client.ask(framed(b""))
        assert 0 < hub.unread.bytes < left
        client.writer.close()
        async with asyncio.timeout(15):
            while len(hub):
                await asyncio.sleep(0)
        assert hub.unread.bytes == 0

    play(scene, window=2**16)


def test_answers_that_a_full_socket_keeps_count_too() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        stream = client.call(framed(b""), HOLD)
        await client.until_held(backend)
        [connection] = hub._connections
        connection.pause_writing()
        backend.held[0].reply([bytes(100_000)])
        await asyncio.sleep(0)
        assert hub.unread.much
        connection.resume_writing()
        assert (await client.reply(stream)).message == bytes(100_000)
        assert hub.unread.bytes == 0

    play(scene, most_unread=50_000)


def test_where_too_much_is_unread_only_streams_that_leave_something_are_held_back() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        idle, busy = client.begin(ECHOES), client.begin(ECHOES)
        client.http.send_data(idle, framed(bytes(150_000)))
        await client.until(lambda: len(client.replies[idle].body) == 2**16)
        assert hub.unread.much
        client.http.send_data(idle, framed(b"more"), end_stream=True)
        for count in range(1, 4):
            client.http.send_data(busy, framed(b"on"), end_stream=count == 3)
            await client.until(lambda had=count: len(client.replies[busy].body) == 7 * had)
        assert backend.echoed == 4
        await client.read(idle)
        assert backend.echoed == 5

    play(scene, most_unread=50_000, window=2**16)


def over_http(url: str, method: str, path: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 4], "data": [1.0] * 8}]}
    connection.request(method, path, json.dumps(body) if method == "POST" else None)
    status = connection.getresponse().status
    connection.close()
    return status


def test_inference_is_refused_while_clients_leave_too_much_unread_and_probes_are_not(bundle: Bundle) -> None:
    triton = pytest.importorskip("tritonclient.grpc", reason="an independent client judges the server")
    tensor = triton.InferInput("x", [2, 4], "FP32")
    tensor.set_data_from_numpy(np.ones((2, 4), np.float32))

    async def leave_unread(address: str, meanwhile: Any) -> None:
        reader, writer = await asyncio.open_connection(*address.split(":"))
        client = Client(reader, writer, window=1)
        stream = client.call(framed(b""), b"/inference.GRPCInferenceService/ServerMetadata")
        await client.until(lambda: bool(client.replies[stream].body))
        await asyncio.to_thread(meanwhile)
        await client.read(stream)
        writer.close()

    front = Front(grpc=("127.0.0.1", 0), unread=20)
    with serve_bundle(bundle, Options(front=front)) as server, triton.InferenceServerClient(server.grpc) as other:

        def ask() -> None:
            assert other.is_server_live() and other.get_model_metadata("tiny")
            with pytest.raises(triton.InferenceServerException, match="wait to be read") as caught:
                other.infer("tiny", [tensor])
            assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
            answers: list[Any] = []
            other.start_stream(lambda result, error: answers.append(error or result))
            other.async_stream_infer("tiny", [tensor])
            other.stop_stream()
            assert ["wait to be read" in str(one) for one in answers] == [True]
            assert over_http(server.url, "POST", "/v2/models/tiny/infer") == 429
            assert over_http(server.url, "GET", "/v2/models/tiny") == 200

        asyncio.run(leave_unread(server.grpc, ask))
        assert other.infer("tiny", [tensor]).as_numpy("y").shape[0] == 2
