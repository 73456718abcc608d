"""gRPC front ends over one codec, in turn, in one run: requests per second by h2load, and processor time per request.

    python benchmarks/grpc_front.py --seconds 3 --rounds 3

The server has the first core, h2load (Debian's package nghttp2-client) the second; 16 connections with one call each,
128 floats as raw contents to a model that gives them back at once, without an engine. `hasten` is our front end with
every check; `grpc.aio` and `grpcio` (a pool of four threads) are the reference library; `pyvoy` is Envoy with Python
inside, and takes part where `pyvoy` is on the path. All of them decode and encode with the same codec. Processor time
is that of the server's processes; other load on the machine moves it less than the rate.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil

METHOD = "/inference.GRPCInferenceService/ModelInfer"
FLOATS = 128


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fronts", default="hasten,grpc.aio,grpcio,pyvoy")
    parser.add_argument("--floats", type=int, default=FLOATS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        SERVERS[given.serve](given.port)
        return
    if shutil.which("h2load") is None:
        sys.exit("h2load is missing: install it with apt-get install nghttp2-client")
    names = [name for name in given.fronts.split(",") if name != "pyvoy" or shutil.which("pyvoy")]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    with tempfile.NamedTemporaryFile() as body:
        Path(body.name).write_bytes(framed_request(given.floats))
        for turn in range(given.rounds):
            for name in names if turn % 2 == 0 else reversed(names):
                with serving(name) as (port, process):
                    load(port, body.name, 1)
                    before = cpu_s(process)
                    rate, done = load(port, body.name, given.seconds)
                    found[name].append((rate, 1e6 * (cpu_s(process) - before) / max(done, 1)))
    for name, results in found.items():
        rate, cost = (statistics.median(column) for column in zip(*results, strict=True))
        print(f"{name:10} {rate:8.0f} req/s  {cost:7.1f} us of processor time per request")


def framed_request(floats: int) -> bytes:
    from hasten.wire.messages import message_type

    message = message_type("inference.ModelInferRequest")(
        model_name="identity",
        inputs=[{"name": "x", "datatype": "FP32", "shape": [1, floats]}],
        raw_input_contents=[bytes(4 * floats)],
    ).SerializeToString()
    return struct.pack(">BI", 0, len(message)) + message


@contextmanager
def serving(name: str) -> Generator[tuple[int, psutil.Process]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--serve", name, "--port", str(port)]
    if name == "pyvoy":
        options = ["--loop", "uvloop", "--no-lifespan", "--worker-threads", "1", "--log-level", "error"]
        command = ["pyvoy", *options, "--port", str(port), "grpc_front:application"]
    server = subprocess.Popen(["taskset", "-c", "0", *command], cwd=Path(__file__).parent)
    process = psutil.Process(server.pid)
    try:
        wait_for(port)
        yield port, process
    finally:
        for one in [*process.children(recursive=True), process]:
            one.kill()
        server.wait()


def wait_for(port: int) -> None:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    sys.exit("the server did not start")


def load(port: int, body: str, seconds: int) -> tuple[float, int]:
    command = ["taskset", "-c", "1", "h2load", "-c16", "-m1", "-t1", "-D", str(seconds), "-d", body]
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    url = f"http://127.0.0.1:{port}{METHOD}"
    words = subprocess.run([*command, *headers, url], capture_output=True, text=True, check=True).stdout
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", words)
    done = re.search(r"(\d+) succeeded, (\d+) failed", words)
    assert rate is not None and done is not None and done[2] == "0", words
    return float(rate[1]), int(done[1])


def cpu_s(process: psutil.Process) -> float:
    times = [one.cpu_times() for one in [process, *process.children(recursive=True)]]
    return sum(time.user + time.system for time in times)


class Identity:
    """Stands where a model's service stands: gives the input back in the next turn of the loop."""

    ready, variant = True, "reference"

    def __init__(self) -> None:
        from hasten.spec.signature import Signature
        from hasten.spec.tensor import TensorSpec

        spec = TensorSpec(name="x", dtype="FP32", shape=("batch", "?"))
        self.bundle = SimpleNamespace(
            manifest=SimpleNamespace(name="identity", signature=Signature(inputs=(spec,), outputs=(spec,)))
        )

    def submit(self, request: Any, answer: Any) -> Any:
        handle = asyncio.get_running_loop().call_soon(lambda: answer(respond(request)))
        return handle.cancel


def respond(request: Any) -> Any:
    from hasten.spec.request import Response

    return Response(
        model="identity", version="", id=request.id, outputs={"x": request.inputs["x"]}, dtypes={"x": "FP32"}
    )


def codec() -> Any:
    from hasten.wire.oip_grpc import OipGrpc

    oip, signature = OipGrpc(), Identity().bundle.manifest.signature

    def answer(body: bytes) -> bytes:
        request = oip.request(oip.parse(body), signature)
        return b"".join(oip.encode(request, respond(request), {}).parts)

    return answer


def serve_hasten(port: int) -> None:
    import uvloop

    from hasten.serve.grpc.front import GrpcFront

    async def run() -> None:
        listener = socket.create_server(("127.0.0.1", port))
        repository: Any = SimpleNamespace(services={"identity": Identity()})
        await GrpcFront(repository).start(listener)
        await asyncio.Event().wait()

    uvloop.run(run())


def serve_aio(port: int) -> None:
    import grpc.aio

    answer = codec()

    async def infer(body: bytes, context: Any) -> bytes:
        return answer(body)

    async def run() -> None:
        server = grpc.aio.server()
        add(server, grpc.unary_unary_rpc_method_handler(infer), port)
        await server.start()
        await server.wait_for_termination()

    asyncio.run(run())


def serve_threads(port: int) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    answer = codec()
    server = grpc.server(ThreadPoolExecutor(4))
    add(server, grpc.unary_unary_rpc_method_handler(lambda body, context: answer(body)), port)
    server.start()
    server.wait_for_termination()


def add(server: Any, method: Any, port: int) -> None:
    import grpc

    service, name = METHOD.strip("/").split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: method}),))
    server.add_insecure_port(f"127.0.0.1:{port}")


async def application(scope: Any, receive: Any, send: Any) -> None:
    """The same over ASGI, for pyvoy."""
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"".join(parts)
    if not body:
        # The load ended in the middle of a request.
        return
    answer = _ANSWER(body[5:])
    headers = [(b"content-type", b"application/grpc")]
    await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
    await send({"type": "http.response.body", "body": struct.pack(">BI", 0, len(answer)) + answer})
    await send({"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]})


SERVERS = {"hasten": serve_hasten, "grpc.aio": serve_aio, "grpcio": serve_threads}

if __name__ == "__main__":
    main()
else:
    _ANSWER = codec()
