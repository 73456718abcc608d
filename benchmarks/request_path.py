"""What one small request costs the server's process, without sockets and without an engine: bytes in, answer bytes out.

    python benchmarks/request_path.py plain=src native=build/native

Real are the front ends, the codecs, the driver, the scheduler, the metrics and uvloop; a transport that keeps nothing
stands for the socket, and an engine that gives its input back in the next turn of the loop for the engine. Eight
clients ask at once and wait for their answers, as many as a batch holds under the load of `make bench-serve`. Each
round runs every tree once in a process of its own, in an order that turns; one takes about 3 s, all cases and rounds of
two trees about two minutes. The figure is processor time, of which the least of the blocks of a process counts, for
other work on the machine only adds to it; then the median over rounds, and that of the ratios of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from hasten.serve.service import ModelService

FLOATS, CLIENTS, BLOCKS = 128, 8, 6
VALUES = np.linspace(0, 1, FLOATS, dtype=np.float32)[None]
GRPC_METHOD = b"/inference.GRPCInferenceService/ModelInfer"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("trees", nargs="+", metavar="NAME=FOLDER", help="a name, and the folder that holds hasten/")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=24_000, help="of one process")
    given = parser.parse_args()
    trees = dict(item.split("=", 1) for item in given.trees)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "identity.bundle"
        _run(next(iter(trees.values())), "--write", str(bundle))
        for case in given.cases.split(","):
            found: dict[str, list[float]] = {name: [] for name in trees}
            for turn in range(given.rounds):
                for name in list(trees) if turn % 2 == 0 else list(reversed(trees)):
                    words = _run(trees[name], "--serve", case, str(bundle), str(given.requests))
                    found[name].append(float(words))
            _tell(case, found)


def _tell(case: str, found: dict[str, list[float]]) -> None:
    first = next(iter(found.values()))
    for name, mine in found.items():
        ratios = [b / a for a, b in zip(mine, first, strict=True)]
        print(
            f"{case:12} {name:8} {statistics.median(mine):6.1f} us a request ({min(mine):.1f} to {max(mine):.1f}), "
            f"{statistics.median(ratios):.2f} times as fast as the first ({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


def _run(tree: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(Path(tree).resolve())}
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


# What runs in the process of a tree.


class Transport(asyncio.Transport):
    """Tells `answered` when something is written, unless it is on hold, and keeps the last piece."""

    def __init__(self, answered: Callable[[], None]) -> None:
        super().__init__()
        self._answered = answered
        self.on_hold = True
        self.last: bytes | memoryview = b""

    def write(self, data: Any) -> None:
        self.last = data
        if not self.on_hold:
            self.on_hold = True
            self._answered()

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        raise AssertionError("the server closed a connection")

    abort = close


class Client(ABC):
    """One connection, and what it sends each time."""

    def __init__(self, make: Callable[[], Any], answered: Callable[[], None]) -> None:
        self.transport = Transport(answered)
        self.protocol = make()
        self.protocol.connection_made(self.transport)

    def ask(self) -> None:
        """Send a request; the next thing to be written after this has returned is taken for the answer."""
        self.send()
        self.transport.on_hold = False

    @abstractmethod
    def send(self) -> None: ...


class HttpClient(Client):
    def __init__(self, request: bytes, make: Callable[[], Any], answered: Callable[[], None]) -> None:
        super().__init__(make, answered)
        self._request = request

    def send(self) -> None:
        # A socket gives new bytes each time.
        self.protocol.data_received(bytes(memoryview(self._request)))


class GrpcClient(Client):
    """HTTP/2 by hand: headers in no table, so that calls differ in the number of their stream only."""

    def __init__(self, message: bytes, make: Callable[[], Any], answered: Callable[[], None]) -> None:
        super().__init__(make, answered)
        fields = {
            b":method": b"POST", b":scheme": b"http", b":path": GRPC_METHOD, b":authority": b"localhost",
            b"content-type": b"application/grpc", b"te": b"trailers",
        }  # fmt: skip
        block = b"".join(
            b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields.items()
        )
        data = struct.pack(">BI", 0, len(message)) + message
        self._head, self._data = _frame_of(1, 4, block), _frame_of(0, 1, data)
        self._stream = 1
        window = struct.pack(">I", 2**31 - 2**16)
        hello = [_frame_of(4, 0, b""), _frame_of(4, 1, b""), _frame_of(8, 0, window)]
        self._receive(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"".join(one(0) for one in hello))

    def send(self) -> None:
        self._receive(self._head(self._stream) + self._data(self._stream))
        self._stream += 2

    def _receive(self, data: bytes) -> None:
        self.protocol.get_buffer(-1)[: len(data)] = data
        self.protocol.buffer_updated(len(data))


def _frame_of(kind: int, flags: int, payload: bytes) -> Callable[[int], bytes]:
    """A frame of HTTP/2 by its stream."""
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return lambda stream: head + stream.to_bytes(4, "big") + payload


class AtOnce:
    """An engine that gives each input back in the next turn of the loop."""

    pid = None

    async def start(self) -> list[Any]:
        return []

    def submit(self, variant: str, batch: Sequence[Any], done: Callable[[Any], None]) -> None:
        asyncio.get_running_loop().call_soon(done, [{"y": inputs["x"]} for inputs in batch])

    async def close(self) -> None:
        pass


def serve(case: str, bundle: Path, requests: int) -> None:
    """Print the us of processor time that one request takes."""
    import uvloop

    uvloop.run(_measure(case, bundle, requests))


async def _measure(case: str, folder: Path, requests: int) -> None:
    import gc

    from hasten.bundle.read import open_bundle
    from hasten.observe.prometheus import Metrics
    from hasten.serve.repository import Repository
    from hasten.serve.service import ModelService

    metrics = Metrics()
    made: list[ModelService] = []

    def make(bundle: Any) -> ModelService:
        service = ModelService(bundle, sink=metrics, isolation="none")
        for instance in service.driver.instances.all:
            instance._runner = AtOnce()
        made.append(service)
        return service

    repository = Repository([open_bundle(folder)], make)
    await repository.start()
    [service] = made
    clients, waiting = CASES[case](repository, metrics), asyncio.Event()
    left = 0

    def answered() -> None:
        nonlocal left
        left -= 1
        if not left:
            waiting.set()

    open_clients = [clients(answered) for _ in range(CLIENTS)]

    async def block(rounds: int) -> None:
        nonlocal left
        for _ in range(rounds):
            left = CLIENTS
            waiting.clear()
            for client in open_clients:
                client.ask()
            await waiting.wait()

    rounds = max(1, requests // BLOCKS // CLIENTS)
    await block(rounds // 4)
    _check(case, service, open_clients, CLIENTS * (rounds // 4))
    gc.collect()
    gc.freeze()
    found: list[float] = []
    for _ in range(BLOCKS):
        began = time.process_time()
        await block(rounds)
        found.append((time.process_time() - began) / (rounds * CLIENTS) * 1e6)
    _check(case, service, open_clients, CLIENTS * (rounds // 4 + BLOCKS * rounds))
    print(min(found))


def _check(case: str, service: ModelService, clients: list[Client], asked: int) -> None:
    """A refusal would be fast."""
    assert service.tally.answered == asked and not service.tally.failures, service.tally.as_statistics("")
    for client in clients:
        answer = bytes(client.transport.last)
        if case == "http-json":
            assert b"[0.0,0.007874016,0.01574803" in answer, answer
        else:
            assert VALUES.tobytes() in answer, answer


def _over_http(repository: Any, metrics: Any, body: bytes, headers: dict[str, str]) -> Callable[..., Client]:
    from hasten.serve.http.frontend import Frontend
    from hasten.serve.http.hub import Hub
    from hasten.serve.telemetry import Telemetry

    front = Frontend(repository, telemetry=Telemetry(sink=metrics, page=metrics.page))
    hub = Hub(front, 64 * 2**20, refused=front.refused)
    hub.start()
    lines = [f"{name}: {value}" for name, value in {**headers, "content-length": str(len(body))}.items()]
    head = ["POST /v2/models/identity/infer HTTP/1.1", "Host: 127.0.0.1:8000", *lines, "", ""]
    request = "\r\n".join(head).encode() + body
    return lambda answered: HttpClient(request, hub.connection, answered)


def _binary(repository: Any, metrics: Any) -> Callable[..., Client]:
    from hasten.wire.oip_client import encode_request

    [service] = repository.services.values()
    body, headers = encode_request({"x": VALUES}, service.bundle.manifest.signature)
    return _over_http(repository, metrics, body, headers)


def _json(repository: Any, metrics: Any) -> Callable[..., Client]:
    import json

    tensor = {"name": "x", "datatype": "FP32", "shape": [1, FLOATS], "data": VALUES[0].tolist()}
    return _over_http(
        repository, metrics, json.dumps({"inputs": [tensor]}).encode(), {"content-type": "application/json"}
    )


def _over_grpc(repository: Any, metrics: Any) -> Callable[..., Client]:
    from hasten.serve.grpc.front import GrpcFront
    from hasten.wire.messages import message_type

    message = message_type("inference.ModelInferRequest")(
        model_name="identity",
        inputs=[{"name": "x", "datatype": "FP32", "shape": [1, FLOATS]}],
        raw_input_contents=[VALUES.tobytes()],
    ).SerializeToString()
    hub = GrpcFront(repository, sink=metrics).hub
    hub.start()
    return lambda answered: GrpcClient(message, hub.connection, answered)


CASES: dict[str, Callable[[Any, Any], Callable[..., Client]]] = {
    "http-binary": _binary,
    "http-json": _json,
    "grpc": _over_grpc,
}


def write(folder: Path) -> None:
    """The bundle that all trees serve."""
    import onnx
    from onnx import TensorProto, helper

    from hasten.spec.signature import Signature
    from hasten.spec.tensor import TensorSpec
    from servers.bundle import MODEL, complete_bundle

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", FLOATS]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", values[:1], values[1:])
    folder.mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / MODEL)
    taken, given = (TensorSpec(name=name, dtype="FP32", shape=("batch", FLOATS)) for name in ("x", "y"))
    signature = Signature(inputs=(taken,), outputs=(given,))
    complete_bundle(folder, "identity", signature, {"x": VALUES}, {"y": VALUES}, 2 * CLIENTS)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
