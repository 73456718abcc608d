"""R2, the short form: mutated requests to every route and mutated messages to every method, always the same ones.

The long form is the row R2 of `make soak`.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from hasten.bundle.read import Bundle
from hasten.serve.http.limits import HttpLimits
from hasten.serve.http.management import api_description
from hasten.serve.server import Front, Options, Running, serve_bundle
from hasten.wire.messages import POOL, message_type
from soaks.mutate import mutated

grpc = pytest.importorskip("grpc", reason="gRPC's own library calls the server")

SEED, REQUESTS, MESSAGES = 20_261_126, 1500, 600
# What a server may say to bytes that make no sense; INTERNAL and UNKNOWN would be bugs of ours, and so would 500.
REFUSALS = {"INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}
SERVICES = {
    "open_inference.proto": "GRPCInferenceService",
    "health.proto": "Health",
    "reflection.proto": "ServerReflection",
}
X = {"name": "x", "shape": [1, 4], "datatype": "FP32"}


@pytest.fixture(scope="module")
def server(bundle: Bundle) -> Iterator[Running]:
    # Whoever promises a body and sends none is let go at once.
    limits = HttpLimits(header_s=0.5, body_s=0.5, linger_s=0.1)
    with serve_bundle(bundle, Options(front=Front(limits=limits, grpc=("127.0.0.1", 0)))) as running:
        yield running


def written(method: str, path: str, body: bytes, **headers: str) -> bytes:
    fields = {"Host": "localhost", "Content-Length": str(len(body)), **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def requests() -> list[bytes]:
    """A good request to each route, and inference in each of its forms."""
    found: list[bytes] = []
    for path, methods in json.loads(api_description())["paths"].items():
        path = path.replace("{model_name}", "tiny").replace("{model_version}", "1")
        found += [written(method.upper(), path, b"{}" if method == "post" else b"") for method in methods]
    infer, head = "/v2/models/tiny/infer", {"inputs": [{**X, "parameters": {"binary_data_size": 16}}]}
    raw = json.dumps(head).encode()
    blob = np.ones(4, np.float32).tobytes()
    plain = json.dumps({"id": "7", "inputs": [{**X, "data": [1, 2, 3, 4]}], "outputs": [{"name": "y"}]}).encode()
    found += [written("POST", infer, plain)] * 6
    found += [written("POST", infer, raw + blob, Inference_Header_Content_Length=str(len(raw)))] * 6
    return found


def answer(server: Running, data: bytes) -> bytes:
    parts: list[bytes] = []
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=60) as stream, suppress(ConnectionError):
        stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)
        while part := stream.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_r2_no_mutated_request_fails_the_server(server: Running, expected: Any) -> None:
    rng, seeds = random.Random(SEED), requests()
    for _ in range(REQUESTS):
        data = mutated(rng.choice(seeds), rng)
        for line in answer(server, data).split(b"\r\n"):
            assert not line.startswith(b"HTTP/1.1 5") or line.startswith(b"HTTP/1.1 503"), (data, line)
    assert_right(server, expected)


def messages() -> list[tuple[str, Any, bytes]]:
    """A filled message for each method: path, whether it streams, bytes."""
    found: list[tuple[str, Any, bytes]] = []
    values = {"name": "tiny", "model_name": "tiny", "service": "tiny", "list_services": "*"}
    for file, service in SERVICES.items():
        described = POOL.FindFileByName(file).services_by_name[service]
        for method in described.methods:
            kind = message_type(method.input_type.full_name)
            known = {field.name for field in method.input_type.fields}
            body = kind(**{name: value for name, value in values.items() if name in known}).SerializeToString()
            if method.input_type.name == "ModelInferRequest":
                tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4]}
                blob = np.ones(4, np.float32).tobytes()
                body = kind(model_name="tiny", inputs=[tensor], raw_input_contents=[blob]).SerializeToString()
                found += [(f"/{described.full_name}/{method.name}", method, body)] * 8
            # A watch would not end.
            if method.name != "Watch":
                found.append((f"/{described.full_name}/{method.name}", method, body))
    return found


def test_r2_no_mutated_message_fails_the_server(server: Running, expected: Any) -> None:
    rng, seeds = random.Random(SEED), messages()
    with grpc.insecure_channel(server.grpc) as channel:
        for _ in range(MESSAGES):
            path, method, body = rng.choice(seeds)
            body = mutated(body, rng)
            try:
                if method.client_streaming:
                    list(channel.stream_stream(path)(iter([body]), timeout=60))
                else:
                    channel.unary_unary(path)(body, timeout=60)
            except grpc.RpcError as error:
                assert error.code().name in REFUSALS, (path, body, error)
    assert_right(server, expected)


def assert_right(server: Running, expected: Any) -> None:
    client = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    client.request("POST", "/v2/models/tiny/infer", json.dumps({"inputs": [{**X, "data": [1, 2, 3, 4]}]}))
    found = json.loads(client.getresponse().read())["outputs"][0]["data"]
    client.close()
    assert found == expected([[1, 2, 3, 4]]).ravel().tolist()
