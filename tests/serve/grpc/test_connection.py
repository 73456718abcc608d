"""Connections as strangers use them: raw bytes and a bare HTTP/2 client against the hub, with a method that echoes."""

from __future__ import annotations

import asyncio
import struct

import ngh2
import pytest
from tests.serve.grpc.scenes import (
    BUG,
    ECHO,
    HOLD,
    MESSAGE_LIMIT,
    PATIENCE_S,
    STREAM,
    TOKEN,
    Backend,
    Client,
    ended,
    framed,
    play,
)

from hasten.serve.access import Access, Scope
from hasten.serve.grpc.hub import Hub
from hasten.serve.grpc.limits import GrpcLimits
from hasten.serve.guard import Guard
from hasten.wire.grpc_framing import GRPC_STATUS


def test_a_message_comes_back() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        reply = await client.ask(framed(b"hello"))
        assert (reply.message, reply.status) == (b"hello", 0)
        assert reply.headers[b"content-type"] == b"application/grpc"

    play(scene)


@pytest.mark.parametrize("size", [0, 1, 100, 70_000, 3 * 2**20])
def test_a_message_of_any_size_passes_flow_control_both_ways(size: int) -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        body = bytes(range(256)) * (size // 256 + 1)
        for _ in range(3):  # windows that were not opened again would stop the second or third
            assert (await client.ask(framed(body[:size]))).message == body[:size]

    play(scene)


def test_what_a_call_shows_to_be_let_in_is_shown_to_nobody() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        client.call(framed(b""), HOLD, authorization=b"Bearer " + TOKEN.encode())
        await client.until_held(backend)
        assert TOKEN in str(backend.held[0].authorization)
        assert TOKEN not in repr(backend.held[0])

    play(scene)


def test_a_message_that_comes_byte_by_byte_is_put_together() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        stream = client.begin()
        body = framed(b"hello")
        for at in range(len(body)):
            client.http.send_data(stream, body[at : at + 1], end_stream=at == len(body) - 1)
            client.flush()
            await client.writer.drain()
        assert (await client.reply(stream)).message == b"hello"

    play(scene)


def test_a_hundred_calls_share_a_connection() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        streams = {client.call(framed(str(number).encode())): str(number).encode() for number in range(100)}
        for stream, message in streams.items():
            assert (await client.reply(stream)).message == message

    play(scene)


REFUSED: dict[str, tuple[bytes, dict[str, bytes], str]] = {
    "no message": (b"", {}, "invalid"),
    "half a prefix": (b"\0\0", {}, "invalid"),
    "a message that is cut off": (framed(b"abc", size=4), {}, "invalid"),
    "two messages": (framed(b"a") * 2, {}, "invalid"),
    "a flag that gRPC does not have": (framed(b"a", compressed=2), {}, "invalid"),
    "compressed without an encoding": (framed(b"a", compressed=1), {}, "invalid"),
    "no gzip": (framed(b"a", compressed=1), {"grpc_encoding": b"gzip"}, "invalid"),
    "an unknown encoding": (framed(b"a", compressed=1), {"grpc_encoding": b"zstd"}, "unsupported_encoding"),
    "a message beyond the limit": (framed(b"", size=MESSAGE_LIMIT + 1), {}, "too_large"),
    "a message of 4 GiB": (framed(b"", size=2**32 - 1), {}, "too_large"),
    "an unknown method": (framed(b""), {"path": b"/test/Unknown"}, "method_not_allowed"),
    "a timeout without a unit": (framed(b""), {"grpc_timeout": b"100"}, "invalid"),
    "a timeout without digits": (framed(b""), {"grpc_timeout": b"S"}, "invalid"),
    "a timeout of nine digits": (framed(b""), {"grpc_timeout": b"123456789S"}, "invalid"),
    "a negative timeout": (framed(b""), {"grpc_timeout": b"-1S"}, "invalid"),
    "metadata beyond the limit": (framed(b""), {"x_long": b"a" * 20_000}, "headers_too_large"),
    "a bug of ours": (framed(b""), {"path": BUG}, "internal"),
}


@pytest.mark.parametrize(("body", "fields", "code"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_answered_gets_a_status_and_the_connection_goes_on(
    body: bytes, fields: dict[str, bytes], code: str
) -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        options = dict(fields)
        reply = await client.ask(body, options.pop("path", ECHO), **options)
        assert (reply.status, reply.headers[b"hasten-code"]) == (GRPC_STATUS[code], code.encode())
        assert reply.headers[b":status"] == b"200"
        assert (await client.ask(framed(b"on"))).message == b"on"

    play(scene)


def test_a_message_beyond_the_limit_is_refused_before_it_is_sent() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        stream = client.begin()
        client.http.send_data(stream, framed(b"", size=MESSAGE_LIMIT + 1))
        reply = await client.reply(stream)
        assert reply.status == GRPC_STATUS["too_large"]
        assert reply.reset == ngh2.ErrorCode.NO_ERROR

    play(scene)


@pytest.mark.parametrize(
    ("fields", "status"), [({"method": b"GET"}, b"405"), ({"content_type": b"application/json"}, b"415")]
)
def test_what_is_no_grpc_is_answered_in_http(fields: dict[str, bytes], status: bytes) -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        assert (await client.ask(b"", **fields)).headers[b":status"] == status
        assert (await client.ask(framed(b"on"))).message == b"on"

    play(scene)


def test_a_call_needs_the_token_where_there_is_one() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        assert (await client.ask(framed(b""))).status == GRPC_STATUS["unauthenticated"]
        wrong = await client.ask(framed(b""), authorization=b"Bearer wrong")
        assert wrong.status == GRPC_STATUS["unauthenticated"]
        right = await client.ask(framed(b""), authorization=b"Bearer " + TOKEN.encode())
        assert right.status == 0

    play(scene, guard=Guard(Access({Scope.INFER: [TOKEN]})))


@pytest.mark.parametrize("path", [HOLD, STREAM])
def test_a_reset_call_is_cancelled(path: bytes) -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        stream = client.call(framed(b""), path)
        await client.until_held(backend)
        client.http.reset_stream(stream)
        await client.ask(framed(b""))
        assert backend.cancelled == 1
        assert backend.held[0].done

    play(scene)


def test_a_client_that_hangs_up_cancels_what_it_asked_for() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        for _ in range(5):
            client.call(framed(b""), HOLD)
        await client.until_held(backend, 5)
        client.writer.close()
        async with asyncio.timeout(PATIENCE_S):
            while len(hub):
                await asyncio.sleep(0)
        assert backend.cancelled == 5

    play(scene)


def test_a_stream_beyond_the_most_is_refused_as_not_begun() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        # The client has not seen the server's settings yet.
        streams = [client.call(framed(b""), HOLD) for _ in range(3)]
        reply = await client.reply(streams[2])
        assert reply.reset == ngh2.ErrorCode.REFUSED_STREAM
        assert len(backend.held) == 2

    play(scene, limits=GrpcLimits(streams=2))


def test_a_streaming_client_is_held_back_while_its_requests_are_under_way() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        stream = client.begin(STREAM)
        client.http.send_data(stream, framed(b"x" * 999) * 500)
        await client.until_held(backend, 2)
        await client.ask(framed(b""))
        call = backend.held[0]
        assert len(backend.held) == 2
        assert client.http.queued_body_size(stream) > 0
        while len(backend.held) < 500:
            call.ahead = 0
            call.resume()
            await client.ask(framed(b""))

    play(scene, limits=GrpcLimits(stream_ahead=2, window=2**16))


def test_messages_that_arrive_in_turns_are_all_put_together() -> None:
    """As nghttp2's load generator sends them: a frame of each. All of them begin before any is whole."""

    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        await client.ask(framed(b""))  # which lets it know the windows
        parts = [bytes([number]) * 15_000 for number in range(20)]
        streams = [client.begin() for _ in range(50)]
        for part in parts:
            for stream in streams:
                last = part is parts[-1]
                head = framed(b"", size=sum(map(len, parts))) if part is parts[0] else b""
                client.http.send_data(stream, head + part, end_stream=last)
                client.flush()
        for stream in streams:
            assert (await client.reply(stream)).message == b"".join(parts)

    # Half of a window is more than any stream has sent when all together have sent what used to be the connection's.
    play(scene, limits=GrpcLimits(window=2**19))


def test_uploads_that_are_given_up_leave_the_connection_its_window() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        for _ in range(40):
            stream = client.begin()
            client.http.send_data(stream, framed(bytes(30_000), size=MESSAGE_LIMIT))
            client.flush()
            assert not client.http.queued_body_size(stream)
            client.http.reset_stream(stream, ngh2.ErrorCode.CANCEL)
            await client.ask(framed(b""))
        assert client.http.remote_window_size > 2**19

    play(scene, limits=GrpcLimits(window=2**16, streams=8))


def test_a_message_that_is_refused_while_its_end_has_come_already_costs_no_other_call() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        held = client.call(framed(b"on"), HOLD)
        await client.until_held(backend)
        for _ in range(40):
            stream = client.begin()
            client.http.send_data(stream, framed(bytes(40_000), size=MESSAGE_LIMIT + 1), end_stream=True)
            assert (await client.reply(stream)).status == GRPC_STATUS["too_large"]
        backend.held[0].reply([b"on"])
        assert (await client.reply(held)).message == b"on"
        assert client.http.remote_window_size > 2**19

    play(scene, limits=GrpcLimits(window=2**16, streams=8))


def test_unfinished_messages_of_all_clients_together_are_bounded() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        streams = [client.begin() for _ in range(3)]
        for stream in streams:
            client.http.send_data(stream, framed(bytes(60_000), size=60_001))
        await client.until(lambda: any(reply.closed for reply in client.replies.values()))
        assert client.replies[streams[1]].status == GRPC_STATUS["overloaded"]
        client.http.send_data(streams[0], b"\0", end_stream=True)
        assert (await client.reply(streams[0])).message == bytes(60_001)

    play(scene, limits=GrpcLimits(buffered=100_000))


def test_an_end_lets_calls_finish_and_takes_no_new_connection_for_them() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        stream = client.call(framed(b""), HOLD)
        resting = client.begin(STREAM)
        await client.until_held(backend)
        end = asyncio.ensure_future(hub.finish())
        assert (await client.reply(resting)).status == GRPC_STATUS["unavailable"]
        assert client.goaway == ngh2.ErrorCode.NO_ERROR
        assert not end.done()
        backend.held[0].reply([b"late"])
        assert (await client.reply(stream)).message == b"late"
        await asyncio.wait_for(end, PATIENCE_S)
        assert len(hub) == 0

    play(scene)


def test_headers_that_come_again_are_held_to_the_same_rules() -> None:
    """Whether they are recognised or read, calls are let in, timed and refused alike."""

    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        token = b"Bearer " + TOKEN.encode()
        for _ in range(3):
            assert (await client.ask(framed(b"hello"), authorization=token)).message == b"hello"
            wrong = await client.ask(framed(b""), authorization=b"Bearer wrong")
            assert wrong.status == GRPC_STATUS["unauthenticated"]
            assert (await client.ask(framed(b""), grpc_timeout=b"S", authorization=token)).status == 3
        hub.guard = Guard(Access({Scope.INFER: [TOKEN + "-another"]}))
        turned_away = await client.ask(framed(b""), authorization=token)
        assert turned_away.status == GRPC_STATUS["unauthenticated"]

    play(scene, guard=Guard(Access({Scope.INFER: [TOKEN]})))


def test_a_timeout_counts_from_each_call_that_names_it() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        for count in (1, 2):
            late = client.call(framed(b""), HOLD, grpc_timeout=b"10S")
            await client.until_held(backend, count)
            call = backend.held[-1]
            assert call.deadline == pytest.approx(call.begun + 10)
            hub.sweep(call.begun + 11)
            assert (await client.reply(late)).status == GRPC_STATUS["deadline"]

    play(scene)


def test_few_headers_are_remembered_and_no_long_ones() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        for number in range(300):
            await client.ask(framed(b""), x_number=b"%d" % number)
        assert 0 < len(hub.known) <= 256
        known = len(hub.known)
        await client.ask(framed(b""), x_long=b"a" * 3000)
        assert len(hub.known) == known

    play(scene)


def test_what_took_too_long_is_given_up() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        now = asyncio.get_running_loop().time()
        slow, late = client.begin(), client.call(framed(b""), HOLD, grpc_timeout=b"10S")
        await client.until_held(backend)
        hub.sweep(now + 20)
        assert (await client.reply(late)).status == GRPC_STATUS["deadline"]
        assert not client.replies[slow].closed
        hub.sweep(now + 40)
        assert (await client.reply(slow)).status == GRPC_STATUS["request_timeout"]
        hub.sweep(now + 500)
        assert len(hub) == 1
        hub.sweep(now + 1000)
        await client.until(lambda: client.eof)

    play(scene)


def test_a_client_that_does_not_greet_is_hung_up_on() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        while not len(hub):
            await asyncio.sleep(0)
        hub.sweep(asyncio.get_running_loop().time() + 11)
        assert len(hub) == 0

    play(scene, greet=False)


def test_one_connection_too_many_is_closed() -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        assert (await client.ask(framed(b"a"))).message == b"a"
        reader, writer = await asyncio.open_connection(*client.writer.get_extra_info("peername"))
        async with asyncio.timeout(PATIENCE_S):
            assert await ended(reader)
        writer.close()
        assert (await client.ask(framed(b"b"))).message == b"b"

    play(scene, limits=GrpcLimits(connections=1))


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
ATTACKS: dict[str, bytes] = {
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "noise": bytes(range(256)) * 4,
    "a frame on a stream that is idle": PREFACE + frame(0, 0, 1, b"abc"),
    "a frame that is too long": PREFACE + b"\xff\xff\xff\0\0\0\0\0\1",
    "header compression that is damaged": PREFACE + frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff"),
    "an even stream": PREFACE + frame(1, 4, 2, b""),
    "headers without end": PREFACE + frame(1, 0, 1, b"\x82") + frame(9, 0, 1, b"\x82") * 100,
    "a megabyte of metadata": PREFACE
    + frame(1, 0, 1, b"\x40\x01a\x7f\x81\xff\x3f" + b"b" * 9000)
    + frame(9, 0, 1, b"b" * 9000) * 120,
    "a compression bomb": PREFACE
    + frame(1, 0, 1, b"\x40\x01a\x7f\x91\x1e" + b"b" * 4000)
    + frame(9, 4, 1, b"\xbe" * 9000),
    "settings in a flood": PREFACE + frame(4, 0, 0, b"\0\3\0\0\0\1") * 20_000,
    "pings in a flood": PREFACE + frame(6, 0, 0, b"12345678") * 20_000,
    "a window that overflows": PREFACE + frame(8, 0, 0, b"\x7f\xff\xff\xff") * 2,
    "a window that grows by zero": PREFACE + frame(8, 0, 0, b"\0\0\0\0"),
    "rapid resets": PREFACE
    + b"".join(frame(1, 4, n, b"\x83\x86\x84\x41\x01x") + frame(3, 0, n, b"\0\0\0\x08") for n in range(1, 30_001, 2)),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_on_the_protocol_costs_the_attacker_its_connection_and_nobody_else(attack: bytes) -> None:
    async def scene(client: Client, backend: Backend, hub: Hub) -> None:
        reader, writer = await asyncio.open_connection(*client.writer.get_extra_info("peername"))
        writer.write(attack)
        async with asyncio.timeout(PATIENCE_S):
            assert await ended(reader)
        writer.close()
        assert (await client.ask(framed(b"well"))).message == b"well"
        assert len(hub) == 1

    play(scene)
