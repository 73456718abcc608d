"""What is sent: the same tensors to every server, in the protocol's forms, and what must come back."""

from __future__ import annotations

import http.client
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb

from servers.identity import LARGE, SMALL, Identity
from servers.process import Server
from serving.load import GrpcLoad, HttpLoad

__all__ = ["CASES", "COMPILED", "COMPILED_LOCAL", "LOCAL", "OURS", "SERVERS", "Case", "check", "loads"]

# hasten with its engines in the server's process: for information, no peer.
LOCAL = "hasten, no isolation"
# Its request path compiled (make native), as in the wheel for one platform: no peer either.
COMPILED = "hasten, compiled"
COMPILED_LOCAL = "hasten, compiled, no isolation"
OURS = ("hasten", LOCAL, COMPILED, COMPILED_LOCAL)
# Peers that speak nothing but JSON of their own making.
OWN_JSON = ("LitServe", "BentoML", "Ray Serve")
SERVERS = (*OURS, "triton", "MLServer", *OWN_JSON)
METHOD = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of request to one identity model; `servers` take part. `bar` is what hasten must reach over the best."""

    name: str
    kind: str
    model: Identity
    servers: tuple[str, ...]
    bar: float


CASES = (
    Case("HTTP, 128 floats, binary", "binary", SMALL, (*OURS, "triton"), 2.0),
    Case("HTTP, 128 floats, JSON", "json", SMALL, (*OURS, "triton", "MLServer", *OWN_JSON), 2.0),
    Case("gRPC, 128 floats", "grpc", SMALL, (*OURS, "triton", "MLServer"), 1.2),
    Case("HTTP, 600 KB, binary", "binary", LARGE, (*OURS, "triton"), 2.0),
    Case("gRPC, 600 KB", "grpc", LARGE, (*OURS, "triton"), 1.2),
)


def loads(case: Case, server: str, connections: int) -> HttpLoad | GrpcLoad:
    """What a server is asked in a case."""
    [tensor] = case.model.tensors
    # Short decimals, as JSON from measuring devices has.
    x = (np.arange(int(np.prod(tensor.row))) % 1000 / 8).astype("<f4")[None]
    shape = [1, *tensor.row]
    if case.kind == "grpc":
        spec = {"name": tensor.taken, "datatype": "FP32", "shape": shape}
        message = pb.ModelInferRequest(model_name=case.model.name, inputs=[spec], raw_input_contents=[x.tobytes()])
        framed = message.SerializeToString()
        return GrpcLoad(METHOD, struct.pack(">BI", 0, len(framed)) + framed, connections)
    if server in OWN_JSON:
        return HttpLoad("/predict", json.dumps({"x": x[0].tolist()}).encode(), JSON, connections)
    path, spec = f"/v2/models/{case.model.name}/infer", {"name": tensor.taken, "datatype": "FP32", "shape": shape}
    if case.kind == "json":
        return HttpLoad(path, json.dumps({"inputs": [{**spec, "data": x[0].tolist()}]}).encode(), JSON, connections)
    head = json.dumps(
        {
            "inputs": [{**spec, "parameters": {"binary_data_size": x.nbytes}}],
            "outputs": [{"name": tensor.given, "parameters": {"binary_data": True}}],
        }
    ).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return HttpLoad(path, head + x.tobytes(), headers, connections)


JSON = {"Content-Type": "application/json"}


def check(case: Case, server: Server, load: HttpLoad | GrpcLoad) -> None:
    """Raise `AssertionError` unless a server really gives the tensor back: fast refusals are no speed."""
    size = int(np.prod(case.model.tensors[0].row))
    expected = np.arange(size) % 1000 / 8
    np.testing.assert_allclose(_answered(server, load, size), expected, rtol=1e-6)


def _answered(server: Server, load: HttpLoad | GrpcLoad, size: int) -> list[float]:
    if isinstance(load, GrpcLoad):
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
            answer = pb.ModelInferResponse.FromString(channel.unary_unary(load.method)(load.frame[5:], timeout=20))
        raw = answer.raw_output_contents
        return list(struct.unpack(f"<{size}f", raw[0])) if raw else list(answer.outputs[0].contents.fp32_contents)
    status, headers, body = post(server.http, load.path, load.body, load.headers)
    assert status == 200, body[:500]
    if "inference-header-content-length" in headers:
        return list(struct.unpack(f"<{size}f", body[int(headers["inference-header-content-length"]) :]))
    document = json.loads(body)
    return document["y"] if "y" in document else np.ravel(document["outputs"][0]["data"]).tolist()


def post(port: int, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
    """One request over HTTP: status, headers by lower-case name, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()
