"""Faults that go on for a while. Each row returns what it did, and raises `AssertionError` where the server did wrong.

The names are rows of the project's list of faults: R2 fuzz, R6 slow clients, R8 cancelled calls, R14 crashes.
"""

from __future__ import annotations

import random
import signal
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import grpc
import psutil

from conformance.grpc_probes import grpc_probes
from conformance.http_probes import http_probes
from conformance.probe import GrpcProbe
from servers.process import Server
from soaks.good import METHOD, Good

__all__ = ["ROWS", "Row"]

Row = Callable[[Server, float, random.Random], str]
HANG_S = 2.0
# What a server may say to bytes that make no sense; INTERNAL and UNKNOWN would be bugs of ours.
REFUSALS = {"INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}


def fuzz(server: Server, seconds: float, rng: random.Random) -> str:
    """R2: mutated requests and messages. No 5xx, no answer later than `HANG_S` of the server's own processor time."""
    good, cases, until = Good(server), 0, time.monotonic() + seconds
    seeds = [good.http_request(probe) for probe in http_probes()]
    messages = [probe for probe in grpc_probes() if probe.method == "ModelInfer"]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        while time.monotonic() < until or cases < 20:
            spent = server.cpu_s()
            if rng.random() < 0.7:
                _fuzz_http(server, _mutated(rng.choice(seeds), rng))
            else:
                _fuzz_grpc(channel, rng.choice(messages), rng)
            assert server.cpu_s() - spent < HANG_S, "a request kept the processor"
            cases += 1
            if cases % 200 == 0:
                good.check()
    return f"{cases} cases"


def _fuzz_http(server: Server, data: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.http), timeout=30) as stream:
        answer = b""
        with suppress(ConnectionError):
            stream.sendall(data)
            stream.shutdown(socket.SHUT_WR)
            while part := stream.recv(65536):
                answer += part
    for line in answer.split(b"\r\n"):
        assert not line.startswith((b"HTTP/1.1 500", b"HTTP/1.1 501", b"HTTP/1.1 502")), (data[:500], answer[:500])


def _fuzz_grpc(channel: Any, probe: GrpcProbe, rng: random.Random) -> None:
    body = _mutated(probe.body, rng)
    try:
        channel.unary_unary(METHOD)(body, timeout=30)
    except grpc.RpcError as error:
        assert error.code().name in REFUSALS, (body[:500], error)  # type: ignore[attr-defined]


def _mutated(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat, insert: one to four times."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << rng.randrange(8)
            case 1:
                del changed[at : at + rng.randint(1, 16)]
            case 2:
                changed[at:at] = changed[at : at + rng.randint(1, 64)] * rng.randint(1, 8)
            case 3:
                changed[at:at] = rng.randbytes(rng.randint(1, 16))
            case _:
                changed[at:at] = rng.choice(
                    [b"-1", b"0", b"null", b"1e999", b"[", b'"', b"\r\n", b"18446744073709551616"]
                )
    return bytes(changed)


def slow_clients(server: Server, seconds: float, rng: random.Random) -> str:
    """R6: 300 connections that send a byte now and then, beside good traffic that must not fail."""
    good, until, answered = Good(server), time.monotonic() + seconds, 0
    with ExitStack() as stack:
        streams = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.http), timeout=30)) for _ in range(300)
        ]
        for stream in streams:
            stream.sendall(b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\n")
        while time.monotonic() < until:
            with suppress(OSError):
                rng.choice(streams).sendall(b"x")
            good.check()
            answered += 1
    return f"300 slow connections, {answered} good requests answered"


def cancels(server: Server, seconds: float, rng: random.Random) -> str:
    """R8: calls cancelled at any moment. Memory grows by 16 MiB at most after the first tenth."""
    good, count, until = Good(server), 0, time.monotonic() + seconds
    warm, resident = time.monotonic() + seconds / 10, 0
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        ask = channel.unary_unary(METHOD)
        while time.monotonic() < until:
            calls = [ask.future(good.message, timeout=30) for _ in range(16)]
            for call in calls:
                if rng.random() < 0.9:
                    call.cancel()
            for call in calls:
                if not call.cancelled():
                    call.result()
            count += len(calls)
            if not resident and time.monotonic() >= warm:
                resident = server.process.memory_info().rss
    grown = (server.process.memory_info().rss - resident) / 2**20
    assert grown <= 16, f"memory grew by {grown:.1f} MiB"
    return f"{count} calls, memory grew by {grown:.1f} MiB"


def crashes(server: Server, seconds: float, rng: random.Random) -> str:
    """R14: the engine's process is killed again and again, and comes back. The server's process is the same."""
    good, killed, until = Good(server), 0, time.monotonic() + seconds
    while time.monotonic() < until or not killed:
        for child in server.process.children():
            with suppress(psutil.NoSuchProcess):
                child.send_signal(rng.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT]))
        killed += 1
        good.until_right(within_s=60)
        # A circuit breaker keeps an engine down that dies too often at once: real crashes have time between them.
        time.sleep(min(13.0, max(0.0, until - time.monotonic())))
    return f"killed {killed} times, back each time"


ROWS: dict[str, Row] = {"R2": fuzz, "R6": slow_clients, "R8": cancels, "R14": crashes}
