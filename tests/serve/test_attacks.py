"""Attacks on the running server, over real sockets. After each one it must still be alive and right.

The letters and numbers are rows of the project's list of attacks (A) and faults (R). What needs no socket is tested
closer to its place: smuggling and deadlines in `http/`, tensors and JSON in `tests/wire`.
"""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from hasten.bundle.read import Bundle
from hasten.serve.http.limits import HttpLimits
from hasten.serve.plan import Rules
from hasten.serve.server import Front, Options, Running, serve_bundle
from hasten.wire.base import Limits

INFER = "/v2/models/tiny/infer"
X = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
MB = 2**20


@pytest.fixture(scope="module")
def server(bundle: Bundle) -> Iterator[Running]:
    with serve_bundle(bundle) as running:
        yield running


@pytest.fixture(scope="module")
def impatient(bundle: Bundle) -> Iterator[Running]:
    """A server whose times are short, so that tests need not wait."""
    limits = HttpLimits(header_s=0.5, body_s=1.0, stalled_s=0.5, linger_s=0.25, connections=400)
    with serve_bundle(bundle, Options(front=Front(limits=limits))) as running:
        yield running


@pytest.fixture(autouse=True)
def _alive_and_right_afterwards(request: pytest.FixtureRequest, expected: Any) -> Generator[None]:
    yield
    for name in ("server", "impatient"):
        if name in request.fixturenames:
            running = request.getfixturevalue(name)
            started = time.monotonic()
            assert call(running, "GET", "/v2/health/live")[0] == 200
            assert time.monotonic() - started < 20
            status, _, body = call(running, "POST", INFER, json.dumps({"inputs": [X]}).encode())
            assert (status, json.loads(body)["outputs"][0]["data"]) == (200, expected([[1, 2, 3, 4]]).ravel().tolist())


@contextmanager
def connection(running: Running) -> Generator[socket.socket]:
    place = urlsplit(running.url)
    with socket.create_connection((place.hostname, place.port), timeout=20) as stream:
        yield stream


def call(
    running: Running, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    client = http.client.HTTPConnection(urlsplit(running.url).netloc, timeout=20)
    try:
        client.request(method, path, body, headers or {})
        answer = client.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        client.close()


def heard(stream: socket.socket) -> bytes:
    """Everything until the server closes."""
    parts: list[bytes] = []
    while part := stream.recv(65536):
        parts.append(part)
    return b"".join(parts)


def code(body: bytes) -> str:
    return json.loads(body)["code"]


def json_body(*inputs: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **fields}).encode()


RAW = {"name": "x", "shape": [1, 4], "datatype": "FP32"}
BLOB = {**RAW, "parameters": {"binary_data_size": 16}}


def blob(*inputs: dict[str, Any], data: bytes = bytes(16)) -> tuple[bytes, dict[str, str]]:
    """A body of JSON and binary data, and the header that says where the one ends."""
    head = json_body(*inputs)
    return head + data, {"Inference-Header-Content-Length": str(len(head))}


MALFORMED: dict[str, tuple[bytes, dict[str, str]]] = {
    "empty body": (b"", {}),
    "no JSON": (b"inputs", {}),
    "no object": (b"[]", {}),
    "no inputs": (b"{}", {}),
    "unknown field": (json_body(X, surprise=1), {}),
    "A2 depth 101": (b'{"inputs":' + b"[" * 101 + b"]" * 101 + b"}", {}),
    "A2 depth 250,000": (b"[" * 250_000, {}),
    "A3 overflow": (json_body({**X, "shape": [16, 2**60 + 2]}), {}),
    "A3 overflow to the right size": (json_body({**X, "shape": [4, 2**60 + 2]}), {}),
    "A3 beyond 64 bits": (b'{"inputs":[{"name":"x","shape":[1e30],"datatype":"FP32","data":[1]}]}', {}),
    "A3 negative": (json_body({**X, "shape": [-1, 4]}), {}),
    "A3 zero": (json_body({**X, "shape": [0, 4], "data": []}), {}),
    "A3 float": (json_body({**X, "shape": [1.5, 4]}), {}),
    "A3 bool": (json_body({**X, "shape": [True, 4]}), {}),
    "A3 string": (json_body({**X, "shape": ["1", 4]}), {}),
    "A3 a million dimensions": (json_body({**X, "shape": [1] * 10**6}), {}),
    "A4 type": (json_body({**X, "datatype": "FP64"}), {}),
    "A4 no type": (json_body({**X, "datatype": "FP8"}), {}),
    "A4 too few elements": (json_body({**X, "data": [1, 2, 3]}), {}),
    "A4 too many elements": (json_body({**X, "data": [1, 2, 3, 4, 5]}), {}),
    "A4 text for numbers": (json_body({**X, "data": ["1", 2, 3, 4]}), {}),
    "A4 null": (json_body({**X, "data": None}), {}),
    "A4 negative size": blob({**RAW, "parameters": {"binary_data_size": -16}}),
    "A4 size beyond the body": blob({**RAW, "parameters": {"binary_data_size": 17}}),
    "A4 one blob for two": blob(BLOB, BLOB),
    "A4 left-over bytes": blob(BLOB, data=bytes(20)),
    "A4 data twice": blob({**X, "parameters": {"binary_data_size": 16}}),
    "A5 length 99999999999": (json_body(X), {"Inference-Header-Content-Length": "99999999999"}),
    "A5 length -1": (json_body(X), {"Inference-Header-Content-Length": "-1"}),
    "A5 length abc": (json_body(X), {"Inference-Header-Content-Length": "abc"}),
    "A5 length of other digits": (json_body(X), {"Inference-Header-Content-Length": "\xb2"}),
    "A5 length one too many": (json_body(X), {"Inference-Header-Content-Length": str(len(json_body(X)) + 1)}),
    "A6 100,000 outputs": (json_body(X, outputs=[{"name": "y"}] * 10**5), {}),
    "A6 output twice": (json_body(X, outputs=[{"name": "y"}, {"name": "y"}]), {}),
    "A6 unknown output": (json_body(X, outputs=[{"name": "z"}]), {}),
    "A6 input twice": (json_body(X, X), {}),
    "A6 unknown input": (json_body({**X, "name": "z"}), {}),
    "A7 strings for numbers": blob({**RAW, "datatype": "BYTES"}, data=struct.pack("<I", 2**32 - 1)),
    "A9 not gzip": (b"gzip", {"Content-Encoding": "gzip"}),
    "A9 cut gzip": (gzip.compress(json_body(X))[:-3], {"Content-Encoding": "gzip"}),
    "reserved parameter": (json_body(X, parameters={"triton_enable_empty_final_response": True}), {}),
    "shared memory": (json_body({**RAW, "parameters": {"shared_memory_region": "r"}}), {}),
    "sequence": (json_body(X, parameters={"sequence_id": 1}), {}),
    "NaN": (json_body({**X, "data": [float("nan"), 2, 3, 4]}), {}),
    "negative timeout": (json_body(X, parameters={"timeout": -1}), {}),
    "A39 control characters": (json_body({**X, "name": 'x\r\n\x1b[31m{"level":"error"}'}), {}),
    "A40 markup": (json_body({**X, "name": "<img src=x onerror=alert(1)>"}), {}),
}  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
def test_r1_each_malformed_request_is_invalid_at_once(server: Running, what: str) -> None:
    body, headers = MALFORMED[what]
    started = time.monotonic()
    status, answered, text = call(server, "POST", INFER, body, headers)
    assert time.monotonic() - started < 20
    assert (status, code(text)) == (400, "invalid")
    assert answered["content-type"] == "application/json"
    assert len(text) < 1000, "nobody gets their megabytes back"
    assert not any(character < 0x20 for character in text), "control characters are escaped (A39)"


@pytest.mark.parametrize(
    ("encoding", "status"),
    [("br", 415), ("gzip, gzip", 415), ("gzip, identity", 415), ("zstd", 415), ("xgzip", 415)],
)
def test_a9_an_encoding_that_is_unknown_or_doubled_is_not_supported(
    server: Running, encoding: str, status: int
) -> None:
    found, _, text = call(server, "POST", INFER, b"{}", {"Content-Encoding": encoding})
    assert (found, code(text)) == (status, "unsupported_encoding")


def test_a_long_body_is_decoded_beside_the_loop_and_answered_all_the_same(server: Running, expected: Any) -> None:
    padding = " " * (2 * MB)
    good, bad = json_body(X) + padding.encode(), json_body({**X, "name": "z"}) + padding.encode()
    for encoding, pack in (({}, bytes), ({"Content-Encoding": "gzip"}, lambda body: gzip.compress(body, 0))):
        status, _, text = call(server, "POST", INFER, pack(good), encoding)
        assert (status, json.loads(text)["outputs"][0]["data"]) == (200, expected([[1, 2, 3, 4]]).ravel().tolist())
        assert call(server, "POST", INFER, pack(bad), encoding)[0] == 400


def test_a_client_that_leaves_while_its_long_body_is_decoded_is_forgotten(server: Running) -> None:
    body = json_body({**X, "shape": [8, 4], "data": [0.5] * 32}) + b" " * (8 * MB)
    before = server.services["tiny"].tally.answered
    for _ in range(5):
        with connection(server) as stream:
            stream.sendall(b"POST %b HTTP/1.1\r\nHost: localhost\r\n" % INFER.encode())
            stream.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    wait_until(lambda: not server.services["tiny"].driver.desk.waiting)
    assert call(server, "POST", INFER, json_body(X))[0] == 200
    assert server.services["tiny"].tally.answered - before <= 6


def resident() -> int:
    return psutil.Process().memory_info().rss


def test_a1_r3_a_flood_of_tiny_chunks_ends_at_its_limit_and_costs_no_memory(server: Running) -> None:
    flood = b"1\r\na\r\n" * 70_000
    start = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    for turn in range(5):
        with connection(server) as stream:
            stream.sendall(start + flood)
            assert heard(stream).startswith(b"HTTP/1.1 400 ")
        if turn == 0:
            before = resident()
    assert resident() - before < 8 * MB


def test_r4_a_body_over_the_cap_is_refused_before_it_is_sent(server: Running) -> None:
    before = resident()
    with connection(server) as stream:
        stream.sendall(f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {64 * MB + 1}\r\n\r\n".encode())
        assert heard(stream).startswith(b"HTTP/1.1 413 ")
    assert resident() - before < 4 * MB


def test_r4_a_body_over_the_cap_in_chunks_is_refused_at_the_cap(bundle: Bundle) -> None:
    with serve_bundle(bundle, Options(limits=Limits(body=4 * MB))) as running, connection(running) as stream:
        before = resident()
        stream.sendall(f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(5):
            stream.sendall(b"100000\r\n" + bytes(MB) + b"\r\n")
        assert heard(stream).startswith(b"HTTP/1.1 413 ")
        assert resident() - before < 16 * MB


def test_r5_a_bomb_is_refused_and_so_are_a_hundred_damaged_bodies(bundle: Bundle) -> None:
    bomb, damaged = gzip.compress(bytes(32 * MB)), gzip.compress(bytes(MB))[:-1]
    with serve_bundle(bundle, Options(limits=Limits(body=8 * MB))) as running:
        before = resident()
        status, _, text = call(running, "POST", INFER, bomb, {"Content-Encoding": "gzip"})
        assert (status, code(text)) == (413, "too_large")
        for _ in range(100):
            assert call(running, "POST", INFER, damaged, {"Content-Encoding": "gzip"})[0] == 400
        assert resident() - before < 32 * MB


def test_r6_a11_slow_clients_are_closed_in_time_and_good_ones_do_not_notice(impatient: Running) -> None:
    place = urlsplit(impatient.url)
    slow_header = b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\n"
    slow_body = slow_header + b"Content-Length: 100\r\n\r\n{"
    streams: list[socket.socket] = []
    try:
        for number in range(300):
            stream = socket.create_connection((place.hostname, place.port), timeout=20)
            streams.append(stream)
            stream.sendall(slow_body if number % 2 else slow_header)
        started = time.monotonic()
        while time.monotonic() - started < 2.0:
            assert call(impatient, "POST", INFER, json_body(X))[0] == 200
        for stream in streams:
            assert heard(stream).startswith(b"HTTP/1.1 408 ")
    finally:
        for stream in streams:
            stream.close()


def test_r6_a_client_that_does_not_read_its_answers_is_cut_off(impatient: Running) -> None:
    one = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    before = resident()
    with connection(impatient) as stream, pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
        stream.sendall(one * 500_000)
    assert resident() - before < 32 * MB


def test_a10_no_second_request_hides_in_a_first_one(server: Running) -> None:
    hidden = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for lines in (
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"X: a\r\n b\r\n",
        b"X: a\n",
    ):
        with connection(server) as stream:
            stream.sendall(b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n0\r\n\r\n")
            stream.sendall(hidden)
            answer = heard(stream)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert len(answer.split(b"\r\ndate: ")) == 2, "one answer"


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.test"},
        {"Host": "evil.test", "Origin": "http://evil.test", "User-Agent": "Mozilla/5.0"},
        {"Origin": "http://evil.test", "Content-Type": "text/plain"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_a17_a_page_of_a_stranger_is_forbidden_whatever_it_does(
    server: Running, method: str, headers: dict[str, str]
) -> None:
    status, _, text = call(server, method, INFER, json_body(X), headers)
    assert (status, code(text)) == (403, "forbidden")


@pytest.mark.parametrize("method", ["HEAD", "DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_a16_another_method_is_not_allowed_and_told_which_one_is(server: Running, method: str) -> None:
    status, headers, text = call(server, method, "/v2/models/tiny")
    assert (status, headers["allow"]) == (405, "GET")
    assert text == b"" if method == "HEAD" else code(text) == "method_not_allowed"


def test_a_client_that_leaves_frees_its_place_in_the_queue(bundle: Bundle) -> None:
    body = json_body(X)
    one = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (INFER.encode(), len(body), body)
    with serve_bundle(bundle, Options(rules=Rules(queue_capacity=1))) as running:
        pid = running.services["tiny"].engine_pid
        assert pid is not None
        engine = psutil.Process(pid)
        engine.suspend()
        try:
            statuses: list[int] = []
            keeper = threading.Thread(target=lambda: statuses.append(call(running, "POST", INFER, body)[0]))
            with connection(running) as first, connection(running) as second:
                first.sendall(one)
                second.sendall(one)
                wait_until(lambda: call(running, "POST", INFER, body)[0] == 429)
            wait_until(lambda: not running.services["tiny"].driver.desk.waiting)
            keeper.start()
            wait_until(lambda: len(running.services["tiny"].driver.desk.waiting) == 1)
        finally:
            engine.resume()
        keeper.join()
        assert statuses == [200]


def wait_until(condition: Any, within_s: float = 15.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s"
