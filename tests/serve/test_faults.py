"""The server against clients and engines that misbehave. Each test has a real server on loopback."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.http as triton
from onnx import TensorProto, helper, numpy_helper

from hasten.bundle.manifest import SCHEMA, FileEntry, Manifest, VariantEntry, encode_manifest
from hasten.bundle.read import Bundle, open_bundle, sha256_of
from hasten.engine.host import environment
from hasten.engine.isolate import load_isolated
from hasten.serve import server
from hasten.serve.batch import _PATH
from hasten.serve.server import Running, serve_bundle
from hasten.spec.measurement import NOT_MEASURED
from hasten.spec.target import Target
from hasten.spec.variant import REFERENCE, Variant

INFER = "/v2/models/linear/infer"
TARGET = Target(engine="onnxruntime", threads=1)


def lookup_model(path: Path) -> Path:
    """y = E[x]: an index outside the table makes the engine fail on that input."""
    table = numpy_helper.from_array(np.arange(20, dtype=np.float32).reshape(10, 2), "E")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["E", "x"], ["y"])],
        "lookup",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [table],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def pack(root: Path, model: Path, sample: np.ndarray[Any, Any], *, max_batch: int = 8) -> Bundle:
    """A bundle of the reference alone, written by hand: such a bundle needs no evidence."""
    with load_isolated(model, TARGET) as session:
        signature, answer = session.signature, session.run({"x": sample})
    root.mkdir()
    model.rename(root / "model.onnx")
    (root / "golden").mkdir()
    np.savez(root / "golden/inputs.npz", **{"0/x": sample})
    np.savez(root / "golden/reference.npz", **{"0/y": answer["y"]})
    paths = ("model.onnx", "golden/inputs.npz", "golden/reference.npz")
    found = {path: sha256_of(root / path) for path in paths}
    entry = VariantEntry(
        variant=Variant(id=REFERENCE, target=TARGET),
        model="model.onnx",
        tolerance={"y": 1e-5},
        latency_p50_ms=NOT_MEASURED,
        throughput_rps=NOT_MEASURED,
        accuracy=NOT_MEASURED,
    )
    manifest = Manifest(
        schema=SCHEMA,
        name="linear",
        signature=signature,
        picked=REFERENCE,
        ladder=(REFERENCE,),
        variants={REFERENCE: entry},
        max_batch=max_batch,
        environment=environment(),
        created="2026-01-01T00:00:00Z",
        files=tuple(FileEntry(path=path, size=size, sha256=digest) for path, (size, digest) in found.items()),
    )
    (root / "manifest.json").write_bytes(encode_manifest(manifest))
    return open_bundle(root)


@pytest.fixture
def bundle(tmp_path: Path, make_linear: Callable[..., Path]) -> Bundle:
    return pack(tmp_path / "bundle", make_linear(), np.ones((1, 4), np.float32))


@pytest.fixture
def running(bundle: Bundle) -> Generator[Running]:
    with serve_bundle(bundle) as running:
        yield running


def call(
    url: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def infer(url: str, **extra: Any) -> tuple[int, dict[str, Any]]:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 1, 1, 1]}
    return call(url, "POST", INFER, json.dumps({"inputs": [tensor], **extra}))


def predict(client: triton.InferenceServerClient, x: np.ndarray[Any, Any], binary: bool) -> np.ndarray[Any, Any]:
    tensor = triton.InferInput("x", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x, binary_data=binary)
    wanted = [triton.InferRequestedOutput("y", binary_data=binary)]
    return client.infer("linear", [tensor], outputs=wanted).as_numpy("y")


def test_each_of_many_concurrent_requests_gets_its_own_answer(running: Running, bundle: Bundle) -> None:
    rng = np.random.default_rng(7)
    inputs = [rng.normal(size=(1 + i % 4, 4)).astype(np.float32) for i in range(500)]
    with load_isolated(bundle.model_path(REFERENCE), TARGET) as session:
        wanted = [session.run({"x": x})["y"].copy() for x in inputs]
    local = threading.local()
    clients: list[triton.InferenceServerClient] = []

    def client() -> triton.InferenceServerClient:
        # Its gevent hub belongs to one thread.
        if not hasattr(local, "client"):
            local.client = triton.InferenceServerClient(running.url.removeprefix("http://"))
            clients.append(local.client)
        return local.client

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda i: predict(client(), inputs[i], bool(i % 2)), range(500)))
    for answer, expected in zip(answers, wanted, strict=True):
        np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)


def test_a_bad_input_fails_alone_and_not_its_batch(tmp_path: Path) -> None:
    bundle = pack(tmp_path / "bundle", lookup_model(tmp_path / "m.onnx"), np.zeros(1, np.int64))

    def lookup(index: int) -> tuple[int, Any]:
        tensor = {"name": "x", "shape": [1], "datatype": "INT64", "data": [index]}
        status, answer = call(running.url, "POST", INFER, json.dumps({"inputs": [tensor]}))
        return status, answer["outputs"][0]["data"] if status == 200 else answer["code"]

    with serve_bundle(bundle) as running, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lookup, [1, 99, 3] * 8))
    assert answers == [(200, [2.0, 3.0]), (500, "internal"), (200, [6.0, 7.0])] * 8


def test_after_a_kill_the_engine_comes_back(running: Running) -> None:
    service = running.services["linear"]
    pid = service.engine_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    statuses = {infer(running.url)[0]}
    deadline = time.monotonic() + 30
    while service.engine_pid == pid or not service.ready:
        statuses.add(infer(running.url)[0])
        assert time.monotonic() < deadline, "an engine that died once comes back"
    # At most what was on its way to the dead process failed; everything else waited for the new one.
    assert statuses <= {200, 503}
    assert infer(running.url)[0] == 200


def test_requests_do_not_wait_for_an_engine_that_cannot_come_back(running: Running, bundle: Bundle) -> None:
    pid = running.services["linear"].engine_pid
    assert pid is not None
    bundle.model_path(REFERENCE).unlink()
    os.kill(pid, signal.SIGKILL)
    for _ in range(3):
        status, answer = infer(running.url)
        assert (status, answer["code"]) == (503, "unavailable")
    assert call(running.url, "GET", "/v2/health/ready") == (503, {"ready": False})
    assert call(running.url, "GET", "/v2/health/live") == (200, {"live": True})


def test_a_deadline_is_kept_while_the_engine_hangs_and_stopping_does_not_wait_for_it(bundle: Bundle) -> None:
    with serve_bundle(bundle) as running:
        pid = running.services["linear"].engine_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        status, answer = infer(running.url, parameters={"timeout": 50_000})
        assert (status, answer["code"]) == (504, "deadline")
        stopping = time.monotonic()
    # The engine's own limit for one run is two minutes.
    assert time.monotonic() - stopping < 10


def chunks() -> Generator[bytes]:
    for _ in range(66):
        yield bytes(2**20)


@pytest.mark.parametrize("body", [bytes(64 * 2**20 + 1), chunks()], ids=["announced", "chunked"])
def test_whoever_sends_too_much_still_reads_the_refusal(running: Running, body: Any) -> None:
    status, answer = call(running.url, "POST", INFER, body)
    assert (status, answer["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    "name", ["..", ".", "%2e%2e", "a%2Fb", "a%5Cb", "%20", "a%0Ab", "a%00b", "a%E2%88%95b", "%ff", "x" * 10_000]
)
def test_names_that_no_model_can_have_are_invalid(running: Running, name: str) -> None:
    status, answer = call(running.url, "GET", f"/v2/models/{name}")
    assert (status, answer["code"]) == (400, "invalid")


@pytest.mark.parametrize("name", ["...", "model..1", "other", "linear:2"])
def test_names_that_a_model_could_have_are_not_found(running: Running, name: str) -> None:
    status, answer = call(running.url, "GET", f"/v2/models/{name}")
    assert (status, answer["code"]) == (404, "not_found")


def test_malformed_http_is_refused_without_a_word_on_standard_error(
    running: Running, capfd: pytest.CaptureFixture[str]
) -> None:
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as stream:
        stream.sendall(b"POST /v2 HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert stream.recv(100).startswith(b"HTTP/1.1 400 ")
    assert capfd.readouterr().err == ""


def test_an_interrupt_while_loading_stops_the_server(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            raise KeyboardInterrupt

    monkeypatch.setattr(server, "threading", SimpleNamespace(Event=Interrupted, Thread=threading.Thread))
    with pytest.raises(KeyboardInterrupt), serve_bundle(bundle):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "hasten-serve"]


def test_paths_of_the_machine_are_not_told_to_clients() -> None:
    words = "failed: /onnxruntime_src/onnxruntime/core/gather.cc:123 idx=99 out of [-10/2, 9]"
    assert _PATH.sub("…", words) == "failed: … idx=99 out of [-10/2, 9]"
