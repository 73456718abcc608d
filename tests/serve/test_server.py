from __future__ import annotations

import gc
import gzip
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest

from hasten.bundle.read import Bundle, sha256_of
from hasten.errors import UsageError
from hasten.serve.plan import Rules
from hasten.serve.server import Options, Running, allow_files, serve_bundle, serve_forever
from hasten.wire.base import Limits

triton = pytest.importorskip("tritonclient.http", reason="an independent client judges the server")

INFER = "/v2/models/tiny/infer"
BODY = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
READY_WITHIN_S = 15.0


class Reply:
    """Status, headers by lower-case name, and the body."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def call(
    server: Running, method: str, path: str, body: bytes | str | None = None, headers: dict[str, str] | None = None
) -> Reply:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=READY_WITHIN_S)
    try:
        connection.request(method, path, body, headers or {})
        return Reply(connection.getresponse())
    finally:
        connection.close()


def infer(server: Running, **fields: Any) -> Reply:
    return call(server, "POST", INFER, json.dumps({**BODY, **fields}))


def engine_pid(server: Running) -> int:
    pid = server.services["tiny"].engine_pid
    assert pid is not None
    return pid


def wait_until(condition: Callable[[], bool], within_s: float = READY_WITHIN_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s"


@contextmanager
def frozen_engine(server: Running) -> Generator[Callable[[], None]]:
    """The engine takes work and gives none back until the function given is called."""
    pid = engine_pid(server)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield lambda: os.kill(pid, signal.SIGCONT)
    finally:
        # A test may have ended it.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def server(bundle: Bundle) -> Iterator[Running]:
    with serve_bundle(bundle) as running:
        yield running


@pytest.fixture
def own_server(bundle: Bundle) -> Iterator[Running]:
    """For tests that stop the engine: nobody else uses this server. One request waits, no more."""
    with serve_bundle(bundle, Options(rules=Rules(queue_capacity=1))) as running:
        yield running


@contextmanager
def triton_client(server: Running) -> Generator[Any]:
    client = triton.InferenceServerClient(urlsplit(server.url).netloc)
    try:
        yield client
    finally:
        client.close()


def triton_infer(client: Any, x: np.ndarray[Any, Any], binary: bool, **options: Any) -> np.ndarray[Any, Any]:
    tensor = triton.InferInput("x", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x, binary_data=binary)
    output = triton.InferRequestedOutput("y", binary_data=binary)
    return client.infer("tiny", [tensor], outputs=[output], **options).as_numpy("y")


def test_an_independent_client_finds_the_server_alive_and_the_model_described(server: Running) -> None:
    with triton_client(server) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert client.is_model_ready("tiny", "1")
        assert not client.is_model_ready("other")
        assert client.get_server_metadata()["name"] == "hasten"
        metadata = client.get_model_metadata("tiny")
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert metadata["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_an_independent_client_gets_the_reference_s_answer(
    server: Running, expected: Any, binary: bool, rows: int
) -> None:
    x = np.arange(4 * rows, dtype=np.float32).reshape(rows, 4)
    with triton_client(server) as client:
        np.testing.assert_allclose(triton_infer(client, x, binary), expected(x), rtol=1e-6)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_an_independent_client_may_compress_both_ways(
    server: Running, expected: Any, binary: bool, encoding: str
) -> None:
    x = np.full((2, 4), 3.0, np.float32)
    options = {"request_compression_algorithm": encoding, "response_compression_algorithm": encoding}
    with triton_client(server) as client:
        np.testing.assert_allclose(triton_infer(client, x, binary, **options), expected(x), rtol=1e-6)


def test_an_independent_client_that_names_no_output_gets_all_of_them(server: Running, expected: Any) -> None:
    x = np.ones((1, 4), np.float32)
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(x)
    with triton_client(server) as client:
        result = client.infer("tiny", [tensor], request_id="7")
    assert result.get_response()["id"] == "7"
    np.testing.assert_allclose(result.as_numpy("y"), expected(x), rtol=1e-6)


def test_many_clients_at_once_each_get_the_answer_to_their_own_question(server: Running, expected: Any) -> None:
    threads, each = 8, 60

    def ask(thread: int) -> None:
        with triton_client(server) as client:
            for i in range(each):
                number = thread * each + i
                x = np.linspace(number, number + 0.5, 4 * (1 + i % 3), dtype=np.float32).reshape(-1, 4)
                got = triton_infer(client, x, binary=bool(i % 2))
                np.testing.assert_allclose(got, expected(x), rtol=1e-5)

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(ask, thread) for thread in range(threads)]:
            done.result()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/health/ready/", {"ready": True}),
        ("/v2/health/ready?verbose=1", {"ready": True}),
        ("/v2/models/tiny/ready", {"name": "tiny", "ready": True}),
        ("/v2/models/tiny/versions/1/ready", {"name": "tiny", "ready": True}),
        ("/v2/models/%74iny/ready", {"name": "tiny", "ready": True}),
    ],
)
def test_a_route_that_asks_for_health_answers_in_json(server: Running, path: str, body: dict[str, Any]) -> None:
    reply = call(server, "GET", path)
    assert (reply.status, reply.json) == (200, body)
    assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/v2/models/tiny", "/v2/models/tiny/", "/v2/models/tiny/versions/1"])
def test_the_metadata_have_one_version_and_the_model_s_name(server: Running, path: str) -> None:
    reply = call(server, "GET", path)
    assert (reply.status, reply.json["name"], reply.json["versions"]) == (200, "tiny", ["1"])


def test_the_server_describes_itself(server: Running) -> None:
    reply = call(server, "GET", "/v2")
    assert reply.status == 200
    assert {"binary_tensor_data", "statistics"} <= set(reply.json["extensions"])


def test_an_answer_in_json_names_the_variant_and_the_bundle_that_gave_it(
    server: Running, bundle: Bundle, expected: Any
) -> None:
    reply = infer(server, id="abc")
    assert reply.status == 200
    assert (reply.json["model_name"], reply.json["id"]) == ("tiny", "abc")
    assert reply.json["parameters"] == {"variant": "reference", "bundle": bundle.digest}
    # Anybody can tell which bundle that is.
    assert bundle.digest == sha256_of(bundle.path / "manifest.json")[1][:12]
    assert reply.json["outputs"][0]["data"] == expected([[1, 2, 3, 4]]).ravel().tolist()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/models", 404, "not_found"),
        ("GET", "/v2/models", 404, "not_found"),
        ("GET", "/v2/models/other", 404, "not_found"),
        ("GET", "/v2/models/other/ready", 404, "not_found"),
        ("POST", "/v2/models/other/infer", 404, "not_found"),
        ("POST", "/v2/models/tiny/versions/2/infer", 404, "not_found"),
        ("GET", "/v2/models/tiny/surprise", 404, "not_found"),
        ("GET", "/v2//models/tiny", 404, "not_found"),
        ("GET", "/v2/models/tiny%2Fready", 400, "invalid"),
        ("GET", "/v2/models/%ff", 400, "invalid"),
        ("GET", "/v2/models/%00", 400, "invalid"),
        ("GET", f"/v2/models/{'a' * 2000}", 400, "invalid"),
        ("POST", "/v2", 405, "method_not_allowed"),
        ("PUT", "/v2/health/live", 405, "method_not_allowed"),
        ("DELETE", "/v2/models/tiny", 405, "method_not_allowed"),
        ("POST", "/v2/models/tiny/ready", 405, "method_not_allowed"),
        ("GET", INFER, 405, "method_not_allowed"),
        ("POST", INFER, 400, "invalid"),
    ],
)
def test_a_wrong_path_or_method_is_answered_in_json(
    server: Running, method: str, path: str, status: int, code: str
) -> None:
    reply = call(server, method, path)
    assert (reply.status, reply.json["code"]) == (status, code)
    assert reply.json["error"]
    assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        pytest.param(b"{", {}, 400, "invalid", id="not JSON"),
        pytest.param(b"[" * 250_000, {}, 400, "invalid", id="depth bomb"),
        pytest.param(b"{}", {"Inference-Header-Content-Length": "3"}, 400, "invalid", id="length beyond the body"),
        pytest.param(b"{}", {"Content-Encoding": "br"}, 415, "unsupported_encoding", id="unknown encoding"),
        pytest.param(b"{}", {"Content-Encoding": "gzip"}, 400, "invalid", id="not gzip"),
    ],
)
def test_a_wrong_body_is_answered_in_json_and_the_server_goes_on(
    server: Running, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    reply = call(server, "POST", INFER, body, headers)
    assert (reply.status, reply.json["code"]) == (status, code)
    assert infer(server).status == 200


def test_more_rows_than_a_batch_are_refused(server: Running) -> None:
    reply = infer(server, inputs=[{"name": "x", "shape": [9, 4], "datatype": "FP32", "data": [0.0] * 36}])
    assert (reply.status, reply.json["code"]) == (400, "invalid")
    assert "8" in reply.json["error"]


@pytest.mark.parametrize(
    ("encoding", "pack", "unpack"),
    [("gzip", gzip.compress, gzip.decompress), ("deflate", zlib.compress, zlib.decompress)],
)
def test_bodies_may_be_compressed_both_ways(
    server: Running, encoding: str, pack: Callable[[bytes], bytes], unpack: Callable[[bytes], bytes]
) -> None:
    headers = {"Content-Encoding": encoding, "Accept-Encoding": encoding}
    reply = call(server, "POST", INFER, pack(json.dumps(BODY).encode()), headers)
    assert (reply.status, reply.headers["content-encoding"]) == (200, encoding)
    assert json.loads(unpack(reply.body))["outputs"] == infer(server).json["outputs"]


def test_one_connection_carries_many_requests(server: Running) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=READY_WITHIN_S)
    try:
        for body in (json.dumps(BODY), "{", json.dumps(BODY)):
            connection.request("POST", INFER, body)
            reply = Reply(connection.getresponse())
            assert reply.status == (400 if body == "{" else 200)
    finally:
        connection.close()


@pytest.fixture(scope="module")
def small(bundle: Bundle) -> Iterator[Running]:
    with serve_bundle(bundle, Options(limits=Limits(body=1000))) as running:
        yield running


def test_a_body_beyond_the_limit_is_too_large(small: Running) -> None:
    reply = call(small, "POST", INFER, b" " * 1001)
    assert (reply.status, reply.json["code"]) == (413, "too_large")


def test_a_body_that_does_not_announce_its_size_is_counted_as_it_comes(small: Running) -> None:
    connection = http.client.HTTPConnection(urlsplit(small.url).netloc, timeout=READY_WITHIN_S)
    try:
        connection.request("POST", INFER, iter([b" " * 600, b" " * 600]), encode_chunked=True)
        reply = Reply(connection.getresponse())
    finally:
        connection.close()
    assert (reply.status, reply.json["code"]) == (413, "too_large")


def test_a_bomb_is_too_large(small: Running) -> None:
    bomb = gzip.compress(bytes(100_000))
    assert len(bomb) < 1000
    reply = call(small, "POST", INFER, bomb, {"Content-Encoding": "gzip"})
    assert (reply.status, reply.json["code"]) == (413, "too_large")


def test_a_body_within_the_limit_is_answered(small: Running) -> None:
    assert infer(small).status == 200


def test_the_queue_s_bound_answers_429_and_says_when_to_come_back(own_server: Running) -> None:
    with frozen_engine(own_server) as thaw, ThreadPoolExecutor(4) as pool:
        # Whichever comes first runs and the next one waits, so of four exactly two are refused while the engine
        # stands still.
        replies = as_completed([pool.submit(infer, own_server) for _ in range(4)])
        refused = [next(replies).result() for _ in range(2)]
        thaw()
        answered = [reply.result() for reply in replies]
    assert [(reply.status, reply.json["code"]) for reply in refused] == [(429, "overloaded")] * 2
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
    assert [reply.status for reply in answered] == [200, 200]


def test_a_timeout_answers_504_whether_the_request_waits_or_runs(own_server: Running) -> None:
    with frozen_engine(own_server) as thaw, ThreadPoolExecutor(2) as pool:
        # One of the two runs on the frozen engine, the other waits behind it.
        replies = [pool.submit(infer, own_server, parameters={"timeout": 200_000}) for _ in range(2)]
        answers = [reply.result() for reply in replies]
        thaw()
    assert [(answer.status, answer.json["code"]) for answer in answers] == [(504, "deadline")] * 2


def hit_by_its_death(server: Running) -> Reply:
    """The answer to a request that was running when its engine died."""
    service = server.services["tiny"]
    with frozen_engine(server), ThreadPoolExecutor(1) as pool:
        hit = pool.submit(infer, server)
        wait_until(lambda: service.driver.core.is_busy())
        os.kill(engine_pid(server), signal.SIGKILL)
        return hit.result()


def test_the_death_of_the_engine_fails_only_what_ran_and_a_new_one_takes_over(own_server: Running) -> None:
    first = engine_pid(own_server)
    hit = hit_by_its_death(own_server)
    assert (hit.status, hit.json["code"]) == (503, "unavailable")
    assert int(hit.headers["retry-after"]) >= 1
    # The next one waits for the new engine.
    assert infer(own_server).status == 200
    wait_until(lambda: call(own_server, "GET", "/v2/health/ready").status == 200)
    assert engine_pid(own_server) != first


def test_the_server_is_not_ready_while_its_engine_is_gone(own_server: Running, bundle: Bundle) -> None:
    model = bundle.model_path("reference")
    hidden = model.with_suffix(".hidden")
    model.rename(hidden)
    try:
        assert hit_by_its_death(own_server).status == 503
        for path, body in (
            ("/v2/health/ready", {"ready": False}),
            ("/v2/models/tiny/ready", {"name": "tiny", "ready": False}),
        ):
            reply = call(own_server, "GET", path)
            assert (reply.status, reply.json) == (503, body)
        assert call(own_server, "GET", "/v2/health/live").status == 200
        with ThreadPoolExecutor(1) as pool:
            # It waits for the restart that is under way, or learns that there was none.
            waiting = pool.submit(infer, own_server, parameters={"timeout": 100_000})
            assert waiting.result().status in (503, 504)
    finally:
        hidden.rename(model)
    wait_until(lambda: call(own_server, "GET", "/v2/health/ready").status == 200)
    assert infer(own_server).status == 200


def test_stopping_releases_the_port_and_leaves_no_process(bundle: Bundle) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with serve_bundle(bundle) as running:
        pid, address = engine_pid(running), urlsplit(running.url)
        assert infer(running).status == 200
    assert address.port is not None
    assert not psutil.pid_exists(pid)
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    connection = http.client.HTTPConnection(address.netloc, timeout=5)
    with pytest.raises(ConnectionRefusedError):
        connection.connect()
    with serve_bundle(bundle, port=address.port) as again:
        assert urlsplit(again.url).port == address.port


def test_an_error_inside_the_block_stops_the_server_too(bundle: Bundle) -> None:
    pids: list[int] = []

    def fail() -> None:
        with serve_bundle(bundle) as running:
            pids.append(engine_pid(running))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not psutil.pid_exists(pids[0])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_an_address_that_others_can_reach_needs_consent(bundle: Bundle, host: str) -> None:
    with pytest.raises(UsageError, match="--insecure"), serve_bundle(bundle, host=host):
        pass
    with pytest.raises(UsageError, match="--insecure"):
        serve_forever([bundle], host=host, port=0)


def test_a_taken_port_is_known_before_anything_is_loaded(bundle: Bundle, server: Running) -> None:
    port = urlsplit(server.url).port
    assert port is not None
    with pytest.raises(UsageError, match="--http"), serve_bundle(bundle, port=port):
        pass


def test_a_server_may_open_a_file_for_each_connection() -> None:
    resource = pytest.importorskip("resource", reason="other systems have no such limit")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (600, before[1]))
    try:
        allow_files(20)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 600, "enough already"
        allow_files(100)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (712, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_two_bundles_of_one_name_are_refused(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="tiny"):
        serve_forever([bundle, bundle], port=0)


SERVER = """
import gc, os, signal, sys
from hasten.bundle.read import open_bundle
from hasten.serve.server import Front, Options, serve_forever

def ready(running):
    print(gc.get_freeze_count())
    os.kill(os.getpid(), signal.SIGTERM)

front = Front(drain_delay_s=0.0)
serve_forever([open_bundle(sys.argv[1])], Options(isolation="none", front=front), port=0, on_ready=ready)
"""


def test_in_a_process_of_its_own_a_server_keeps_what_lives_from_the_collector(bundle: Bundle) -> None:
    said = subprocess.run(
        [sys.executable, "-c", SERVER, str(bundle.path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(said.stdout) > 1000


def test_in_a_process_of_somebody_else_it_leaves_the_collector_alone(bundle: Bundle) -> None:
    with serve_bundle(bundle, Options(isolation="none")):
        assert gc.get_freeze_count() == 0
