"""Answers on their way to clients that read slowly, or not at all."""

from __future__ import annotations

import asyncio

import ngh2
from tests.serve.grpc.scenes import ECHOES, HOLD, TALK, Backend, Client, framed, play

from hasten.errors import RequestError
from hasten.serve.grpc.hub import Hub
from hasten.serve.grpc.limits import GrpcLimits
from hasten.wire.grpc_framing import GRPC_STATUS


def test_a_large_answer_waits_for_a_client_with_a_small_window_and_holds_nobody_up() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        body = bytes(range(256)) * 3000
        stream = client.call(framed(body))
        await client.until(lambda: len(client.replies[stream].body) == 2**16)
        assert (await client.ask(framed(b"on"))).message == b"on"
        reply, acknowledged = client.replies[stream], 0
        while not reply.closed:
            client.http.acknowledge_received_data(len(reply.body) - acknowledged, stream)
            acknowledged = len(reply.body)
            await client.until(lambda had=acknowledged: reply.closed or len(reply.body) > had)
        assert (reply.status, reply.message) == (0, body)

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
        reply, acknowledged = client.replies[stream], 0
        while not reply.closed:
            client.http.acknowledge_received_data(len(reply.body) - acknowledged, stream)
            acknowledged = len(reply.body)
            await client.until(lambda had=acknowledged: reply.closed or len(reply.body) > had)
        assert (reply.status, reply.body) == (0, framed(bytes(9_995)) * 100)

    play(scene, limits=GrpcLimits(unread=50_000), window=2**16)


def test_a_stream_with_too_much_unread_is_ended_and_only_it() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        reply = await client.ask(framed(bytes(10_000)), TALK)
        # gRPC's mapping of HTTP/2 errors makes RESOURCE_EXHAUSTED of it.
        assert reply.reset == ngh2.ErrorCode.ENHANCE_YOUR_CALM
        assert len(reply.body) <= 2**16
        assert (await client.ask(framed(b"on"))).message == b"on"

    play(scene, limits=GrpcLimits(unread_most=200_000), window=2**16)


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
