"""Faults that go on for a while. Each row returns what it did, and raises `AssertionError` where the server did wrong.

The names are rows of the project's list of faults: R2 fuzz, R6 slow clients, R8 cancelled calls, R14 crashes, R19
swaps, R20 changes of the repository, R22 kills of whoever writes a bundle, R28 answers for the right question.
"""

from __future__ import annotations

import random
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import psutil
from tritonclient.grpc import service_pb2 as pb

from conformance.grpc_probes import grpc_probes
from conformance.http_probes import http_probes
from conformance.probe import GrpcProbe
from servers.identity import TINY, WIDE, Identity
from servers.process import Server
from soaks.crosstalk import crosstalk
from soaks.good import METHOD, SERVICE, TOKEN, Good
from soaks.mutate import mutated
from soaks.releases import kills, swaps

__all__ = ["FLAGS", "GUARDED", "MIXED", "MODELS", "ROWS", "VARIABLES", "Row"]

# The server, how long (s), chance, and the folder of the bundle that is served.
Row = Callable[[Server, float, random.Random, Path], str]
HANG_S = 2.0
# What a server may say to bytes that make no sense; INTERNAL and UNKNOWN would be bugs of ours.
REFUSALS = {"INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}


def fuzz(server: Server, seconds: float, rng: random.Random, bundle: Path) -> str:
    """R2: mutated requests and messages. No 5xx, no answer later than `HANG_S` of the server's own processor time."""
    good, cases, until = Good(server), 0, time.monotonic() + seconds
    seeds = [good.http_request(probe) for probe in http_probes()]
    # What changes the server is not switched on here, and streams are a row of their own.
    messages = [probe for probe in grpc_probes() if not probe.streams]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        while time.monotonic() < until or cases < 20:
            spent = server.cpu_s()
            if rng.random() < 0.7:
                _fuzz_http(server, mutated(rng.choice(seeds), rng))
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
    body = mutated(probe.body, rng)
    try:
        channel.unary_unary(f"/{SERVICE}/{probe.method}")(body, timeout=30)
    except grpc.RpcError as error:
        assert error.code().name in REFUSALS, (body[:500], error)  # type: ignore[attr-defined]


def slow_clients(server: Server, seconds: float, rng: random.Random, bundle: Path) -> str:
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


# Whose connection cancels more than 10,000 calls at once, and 1,000 a second after that, is cut off (docs/serve.md).
_CALLS_A_CONNECTION = 5_000


def cancels(server: Server, seconds: float, rng: random.Random, bundle: Path) -> str:
    """R8: calls and streams cancelled at any moment. Memory grows by 16 MiB at most after the first tenth."""
    count, until = 0, time.monotonic() + seconds
    warm, resident = time.monotonic() + seconds / 10, 0
    while time.monotonic() < until:
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
            for calls in _cancelled(channel, Good(server).message, rng):
                count += calls
                if not resident and time.monotonic() >= warm:
                    resident = server.process.memory_info().rss
                if time.monotonic() >= until:
                    break
    grown = (server.process.memory_info().rss - resident) / 2**20
    assert grown <= 16, f"memory grew by {grown:.1f} MiB"
    return f"{count} calls and streams, memory grew by {grown:.1f} MiB"


def _cancelled(channel: Any, message: bytes, rng: random.Random) -> Generator[int]:
    """Calls and a stream again and again, most of them cancelled, as many as a connection may; how many each time."""
    ask, talk = channel.unary_unary(METHOD), channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
    for _ in range(_CALLS_A_CONNECTION // 17):
        calls = [ask.future(message, timeout=30) for _ in range(16)]
        for call in calls:
            if rng.random() < 0.9:
                call.cancel()
        for call in calls:
            if not call.cancelled():
                call.result()
        stream = talk(iter([message] * 4), timeout=30)
        for _ in range(rng.randrange(4)):
            next(stream)
        stream.cancel()
        yield len(calls) + 1


def crashes(server: Server, seconds: float, rng: random.Random, bundle: Path) -> str:
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


def changes(server: Server, seconds: float, rng: random.Random, bundle: Path) -> str:
    """R20: eight who load and unload, over HTTP and gRPC. At the end the model is whole, on one engine process."""
    good, until = Good(server, TOKEN), time.monotonic() + seconds

    def change(number: int) -> int:
        count, mine = 0, random.Random(number)
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
            while time.monotonic() < until:
                what = mine.choice(["load", "unload"])
                _change_http(good, server, what) if mine.random() < 0.5 else _change_grpc(channel, what)
                count += 1
        return count

    with ThreadPoolExecutor(8) as threads:
        total = sum(threads.map(change, rng.sample(range(1000), 8)))
    _change_http(good, server, "load")
    good.check()
    engines = [child for child in server.process.children() if "hasten.engine.worker" in child.cmdline()]
    assert len(engines) == 1, f"{len(engines)} engine processes"
    return f"{total} changes"


def _change_http(good: Good, server: Server, what: str) -> None:
    url = f"{server.url}/v2/repository/models/tiny/{what}"
    with urllib.request.urlopen(urllib.request.Request(url, b"{}", good.headers), timeout=300) as answer:
        assert answer.status == 200


def _change_grpc(channel: Any, what: str) -> None:
    body = getattr(pb, f"RepositoryModel{what.title()}Request")(model_name="tiny").SerializeToString()
    ask = channel.unary_unary(f"/{SERVICE}/RepositoryModel{what.title()}")
    ask(body, timeout=300, metadata=(("authorization", f"Bearer {TOKEN}"),))


ROWS: dict[str, Row] = {
    "R2": fuzz,
    "R6": slow_clients,
    "R8": cancels,
    "R14": crashes,
    "R19": swaps,
    "R20": changes,
    "R22": kills,
    "R28": crosstalk,
}
# Those that harm a server in turn.
MIXED = ("R2", "R6", "R8", "R14")
# Repository control needs tokens, which would keep the other rows out.
GUARDED = frozenset({"R19", "R20"})
FLAGS = {
    "R19": ("--repository-control",),
    "R20": ("--repository-control",),
    "R28": ("--queue-capacity", "4096", "--run-timeout", "900"),
}
MODELS: dict[str, Identity] = {name: WIDE if name == "R28" else TINY for name in (*ROWS, "R26")}
VARIABLES = {"HASTEN_ADMIN_TOKEN": TOKEN, "HASTEN_INFER_TOKEN": TOKEN}
