"""HTTP front ends of several source trees, in turn, in one run: requests per second and latency by wrk.

    python benchmarks/front_end.py old=/tmp/old/src new=src --seconds 3 --rounds 5

The server has the first core, wrk (Debian's package) the second, 16 connections. Three cases: `live` is HTTP alone;
`codec` sends 128 floats as a binary tensor to a model that gives them back at once, without an engine; `engine` sends
the same through an engine process of ONNX Runtime, which shares the server's core. Each round measures every tree once,
in an order that turns. The result is the median over rounds, and the median of the paired ratios to the first tree: of
requests per second, and of the processor time that the server's process spends on one, which other load on the machine
moves less.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil

CASES = ("live", "codec", "engine")
FLOATS = 128


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("trees", nargs="+", metavar="NAME=FOLDER", help="a name, and the folder that holds hasten/")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=16)
    given = parser.parse_args()
    trees = dict(item.split("=", 1) for item in given.trees)
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: install it with apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        script = _script(Path(folder))
        for case in given.cases.split(","):
            found: dict[str, list[Found]] = {name: [] for name in trees}
            for turn in range(given.rounds):
                names = list(trees) if turn % 2 == 0 else list(reversed(trees))
                for name in names:
                    with _serving(Path(trees[name]), case, Path(folder)) as (url, process):
                        _wrk(url, case, script, 1, given.connections)  # warm-up
                        before = _cpu_s(process)
                        words = _wrk(url, case, script, given.seconds, given.connections)
                        found[name].append(_read(words, _cpu_s(process) - before))
            _tell(case, found)


@dataclass
class Found:
    """One measurement: requests per second, the server's processor time for one in us, p99 latency in wrk's words."""

    rate: float
    cpu_us: float
    p99: str


def _tell(case: str, found: dict[str, list[Found]]) -> None:
    first = next(iter(found.values()))
    for name, mine in found.items():
        rates, costs = [one.rate for one in mine], [one.cpu_us for one in mine]
        faster = statistics.median(a.rate / b.rate for a, b in zip(mine, first, strict=True))
        cheaper = statistics.median(b.cpu_us / a.cpu_us for a, b in zip(mine, first, strict=True))
        print(
            f"{case:7} {name:6} {statistics.median(rates):8,.0f} req/s ({min(rates):,.0f} to {max(rates):,.0f}, "
            f"ratio {faster:.2f}), {statistics.median(costs):6.1f} us CPU a request ({min(costs):.1f} to "
            f"{max(costs):.1f}, ratio {cheaper:.2f}), p99 {' '.join(one.p99 for one in mine)}",
            flush=True,
        )


def _read(words: str, cpu_s: float) -> Found:
    """A refusal would be fast: any answer but 2xx ends the benchmark. Timeouts are the machine's, where it is busy."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", words)
    count = re.search(r"(\d+) requests in", words)
    p99 = re.search(r"^\s+99%\s+(\S+)", words, re.MULTILINE)
    if rate is None or count is None or p99 is None or re.search(r"Non-2xx|(connect|read|write) [1-9]", words):
        sys.exit(words)
    return Found(float(rate[1]), cpu_s / int(count[1]) * 1e6, p99[1])


def _cpu_s(process: subprocess.Popen[str]) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system


def _wrk(url: str, case: str, script: Path, seconds: int, connections: int) -> str:
    path = "/v2/health/live" if case == "live" else "/v2/models/identity/infer"
    extra = [] if case == "live" else ["-s", str(script)]
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *extra, url + path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _script(folder: Path) -> Path:
    """What wrk sends: a binary tensor both ways, as tritonclient does."""
    import numpy as np

    from hasten.spec.signature import Signature
    from hasten.wire.oip_client import encode_request

    signature = Signature(inputs=(_spec("x"),), outputs=(_spec("y"),))
    body, headers = encode_request({"x": np.linspace(0, 1, FLOATS, dtype=np.float32)[None]}, signature)
    (folder / "body").write_bytes(body)
    lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
    script = folder / "post.lua"
    script.write_text(
        "\n".join(['wrk.method = "POST"', f'wrk.body = io.open("{folder}/body", "rb"):read("*a")', *lines])
    )
    return script


def _spec(name: str) -> Any:
    from hasten.spec.tensor import TensorSpec

    return TensorSpec(name=name, dtype="FP32", shape=("batch", FLOATS))


@contextmanager
def _serving(tree: Path, case: str, folder: Path) -> Generator[tuple[str, subprocess.Popen[str]]]:
    command = ["taskset", "-c", "0", sys.executable, __file__, "--serve", case, str(folder / "identity.bundle")]
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve())}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(url + "/v2/health/live") as answer:
            assert answer.status == 200
        yield url, process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


# What runs in the server's process, with whatever tree PYTHONPATH names.


def serve(case: str, bundle: Path) -> None:
    """Serve one case until killed."""
    if case == "engine":
        from hasten.bundle.read import open_bundle
        from hasten.serve.server import serve_forever

        if not bundle.exists():
            _write_bundle(bundle)
        serve_forever([open_bundle(bundle)], port=0, on_ready=_say, **_observed())
        return
    import uvloop

    uvloop.run(_front_end())


def _say(ready: Any) -> None:
    """Trees of all ages: what is ready was a URL once."""
    print(getattr(ready, "url", ready), flush=True)


def _observed() -> dict[str, Any]:
    """What `hasten serve` observes by default, in trees that do: every request is counted."""
    try:
        from hasten.observe.prometheus import Metrics
        from hasten.serve.telemetry import Telemetry
    except ModuleNotFoundError:
        return {}
    metrics = Metrics()
    telemetry = Telemetry(sink=metrics, page=metrics.page)
    try:
        from hasten.serve.server import Options
    except ImportError:
        return {"telemetry": telemetry}
    return {"options": Options(telemetry=telemetry)}


async def _front_end() -> None:
    """The front end alone, before a model that needs no engine."""
    import socket

    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    services: Any = {"identity": Identity()}
    try:
        from hasten.serve.http.frontend import Frontend
        from hasten.serve.http.hub import Hub
    except ModuleNotFoundError:
        await _asgi(services, listener, url)
        return
    repository: Any = SimpleNamespace(services=services)
    hub = Hub(Frontend(repository), 64 * 2**20)
    hub.start()
    await asyncio.get_running_loop().create_server(hub.connection, sock=listener)
    print(url, flush=True)
    await asyncio.Event().wait()


async def _asgi(services: Any, listener: Any, url: str) -> None:
    """The first front end, with the options that the server gave it (decision 0004)."""
    import uvicorn  # pyright: ignore[reportMissingImports]
    from hasten.serve.frontend import Frontend  # pyright: ignore[reportMissingImports]

    config = uvicorn.Config(
        Frontend(services),
        log_config=None,
        log_level="error",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
    )
    print(url, flush=True)
    await uvicorn.Server(config).serve(sockets=[listener])


class Identity:
    """Gives back what it gets, in both manners of asking."""

    ready = True

    def __init__(self) -> None:
        from hasten.spec.signature import Signature

        signature = Signature(inputs=(_spec("x"),), outputs=(_spec("y"),))
        self.bundle = SimpleNamespace(manifest=SimpleNamespace(name="identity", signature=signature))

    def _answer(self, request: Any) -> Any:
        from hasten.spec.request import Response

        return Response(
            model="identity",
            version="",
            id=request.id,
            outputs={"y": request.inputs["x"]},
            dtypes={"y": "FP32"},
            parameters={"variant": "reference"},
        )

    async def infer(self, request: Any) -> Any:
        return self._answer(request)

    def submit(self, request: Any, answer: Any, origin: Any = None) -> Any:
        return asyncio.get_running_loop().call_soon(answer, self._answer(request)).cancel


def _write_bundle(folder: Path) -> None:
    """A bundle of a reference alone, which needs no evidence."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    from hasten.bundle.manifest import MANIFEST, SCHEMA, FileEntry, Manifest, VariantEntry, encode_manifest
    from hasten.bundle.read import sha256_of
    from hasten.engine.host import environment
    from hasten.spec.measurement import NOT_MEASURED
    from hasten.spec.signature import Signature
    from hasten.spec.target import Target
    from hasten.spec.variant import REFERENCE, Variant

    (folder / "golden").mkdir(parents=True)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", FLOATS]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "m.onnx")
    sample = np.ones((1, FLOATS), np.float32)
    np.savez(folder / "golden/inputs.npz", **{"0/x": sample})
    np.savez(folder / f"golden/{REFERENCE}.npz", **{"0/y": sample})
    paths = ("m.onnx", "golden/inputs.npz", f"golden/{REFERENCE}.npz")
    hashes = {path: sha256_of(folder / path) for path in paths}
    entry = VariantEntry(
        variant=Variant(id=REFERENCE, target=Target(engine="onnxruntime", threads=1, pin=False)),
        model="m.onnx",
        tolerance={"y": 1e-6},
        latency_p50_ms=NOT_MEASURED,
        throughput_rps=NOT_MEASURED,
        accuracy=NOT_MEASURED,
    )
    manifest = Manifest(
        schema=SCHEMA,
        name="identity",
        signature=Signature(inputs=(_spec("x"),), outputs=(_spec("y"),)),
        picked=REFERENCE,
        ladder=(REFERENCE,),
        variants={REFERENCE: entry},
        max_batch=16,
        environment=environment(),
        created="2026-01-01T00:00:00+00:00",
        files=tuple(FileEntry(path=path, size=size, sha256=digest) for path, (size, digest) in hashes.items()),
    )
    (folder / MANIFEST).write_bytes(encode_manifest(manifest))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
