"""Serving defaults that were tried: chosen by simulation, then put to the test on the real server. Part of the facade.

The server runs in a process of its own, as `hasten serve` starts it, and requests come over loopback from an open loop
of Poisson arrivals. First two short phases tell what simulation over engine times cannot know: an idle one what a
request spends outside the engine, and a saturated one how much slower the engine is beside the server and its clients,
which take their share of the machine. With both the prediction is made, and only then the load is put on: what is
predicted was not seen.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import msgspec
import numpy as np

from hasten.bundle.read import open_bundle
from hasten.errors import EngineError
from hasten.fleet.capacity import COMFORTABLE, Question, choose, predict, speed_needed
from hasten.measure.load import Load
from hasten.measure.traffic import run_load
from hasten.optimize.deploy import Asked
from hasten.spec.measurement import Figure
from hasten.spec.serving import Deployment, Prediction, Rehearsal, Serving
from hasten.stats.percentiles import values_needed
from hasten.targets import UrlTarget
from hasten.wire.oip_http import encode_request

__all__ = ["Beside", "RealDeployer", "measure_beside", "predict_beside", "rehearse_at", "served"]

_IDLE_REQUESTS = 60
_OTHERS = 6
_SATURATED_S = 3.0
_SAME_LOAD = 0.02
_SHORTEST_S, _LONGEST_S = 6.0, 40.0


class RealDeployer:
    """The deployer of the command line: simulates with `fleet`, serves with `hasten serve`."""

    def choose(self, asked: Asked) -> Deployment:
        """Return serving defaults by simulation."""
        return choose(_question(asked))

    def rehearse(self, asked: Asked, deployment: Deployment, bundle: Path) -> Deployment:
        """Serve the bundle, predict once more with what the server itself takes, and put the load on."""
        if importlib.util.find_spec("httptools") is None:
            return deployment
        manifest = open_bundle(bundle).manifest
        bodies = [encode_request(inputs, manifest.signature) for inputs in asked.inputs]
        with served(bundle) as url:
            target = UrlTarget(urlsplit(url).netloc, f"/v2/models/{manifest.name}", bodies)
            with contextlib.closing(target):
                return _tried(asked, deployment, target)


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """What simulation over engine times cannot know: the milliseconds that a request spends outside the engine, what
    the server carries with every instance busy, and how fast the engine is beside server and clients (1: as alone).
    """

    overhead_ms: float
    capacity_rps: Figure
    speed: float


def measure_beside(target: UrlTarget, deployment: Deployment) -> Beside:
    """Ask an idle server, then a saturated one."""
    overhead_ms = _overhead_ms(target, deployment)
    capacity = _capacity(target, deployment)
    return Beside(overhead_ms=overhead_ms, capacity_rps=capacity, speed=_speed(deployment, capacity))


def predict_beside(question: Question, serving: Serving, load_rps: float, beside: Beside) -> Prediction:
    """What a served variant gives at a load, beside its server and clients."""
    served_question = replace(question, overhead_ms=beside.overhead_ms)
    return predict(served_question, serving, load_rps, speed=beside.speed)


def _tried(asked: Asked, deployment: Deployment, target: UrlTarget) -> Deployment:
    question = _question(asked)
    beside = measure_beside(target, deployment)
    load = asked.goal.slo.throughput_rps or COMFORTABLE * (beside.capacity_rps.value or 1.0)
    # The others anew as well: next to each other stand only predictions for one load on one machine.
    others = [serving for serving, _ in deployment.considered[:_OTHERS]]
    predicted = predict_beside(question, deployment.serving, load, beside)
    considered = tuple((serving, predict_beside(question, serving, load, beside)) for serving in others)
    duration_s = float(np.clip(1.5 * values_needed(99) / load, _SHORTEST_S, _LONGEST_S))
    found = rehearse_at(target, load, duration_s)
    return msgspec.structs.replace(
        deployment,
        predicted=predicted,
        rehearsed=found,
        considered=considered,
        capacity_rps=beside.capacity_rps,
        reason=deployment.reason + _moved(deployment, load) + _told(asked, deployment, found, beside.speed),
    )


def _question(asked: Asked) -> Question:
    return Question(variant=asked.variant, times=asked.times, keys=asked.keys, goal=asked.goal, seed=asked.seed)


@contextlib.contextmanager
def served(bundle: Path) -> Generator[str]:
    """Serve a bundle in a process of its own while the block runs; the URL where it listens. Raises `EngineError`."""
    command = [sys.executable, "-m", "hasten.cli", "serve", str(bundle), "--http", "127.0.0.1:0", "--json"]
    # A file for its errors: a pipe that nobody reads fills up and stops the server.
    log = tempfile.TemporaryFile()  # noqa: SIM115 (closed below, after the process)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, start_new_session=True, env=_environment())
    try:
        assert process.stdout is not None
        document = _document(process.stdout)
        if "url" not in document:
            process.wait()
            log.seek(0)
            words = document.get("error", {}).get("message") or log.read().decode(errors="replace").strip()
            raise EngineError(f"The server did not start: {words or 'it said nothing'}")
        yield document["url"]
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()
        log.close()


def _environment() -> dict[str, str]:
    """Ours, without what configures the user's own server: a rehearsal is not to ask for its tokens."""
    kept = ("HASTEN_CACHE_DIR", "HASTEN_HISTORY")
    return {name: value for name, value in os.environ.items() if not name.startswith("HASTEN_") or name in kept}


def _document(stream: IO[bytes]) -> dict[str, Any]:
    """The first JSON document of a stream, which may span lines; an empty one where the stream ends before."""
    text = b""
    for line in stream:
        text += line
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(text)
    return {}


def rehearse_at(target: UrlTarget, load_rps: float, duration_s: float, *, seed: int = 1) -> Rehearsal:
    """Put an open loop of Poisson arrivals on a server for so long. Percentiles are measured where there are enough."""
    result = run_load(target, Load(kind="poisson", value=load_rps), duration_s, seed=seed)
    return Rehearsal(
        load_rps=load_rps,
        offered_rps=result.offered_rps or load_rps,
        latency_p50_ms=result.latency_p50_ms,
        latency_p95_ms=result.latency_p95_ms,
        latency_p99_ms=result.latency_p99_ms,
        throughput_rps=result.throughput_rps,
        failed=result.failed + result.unanswered + result.unsent,
    )


def _overhead_ms(target: UrlTarget, deployment: Deployment) -> float:
    """What a request to an idle server takes beyond the engine's own time."""
    serving = deployment.serving
    layout = (serving.instances, serving.threads, 1)
    own = next(item for item in deployment.times if (item.instances, item.threads, item.batch) == layout)
    times: list[float] = []
    for index in range(_IDLE_REQUESTS):
        started = time.perf_counter()
        target.call(index)
        times.append((time.perf_counter() - started) * 1e3)
    return max(0.0, float(np.median(times)) - float(np.median(own.alone_ms or own.busy_ms)))


def _capacity(target: UrlTarget, deployment: Deployment) -> Figure:
    """Requests per second with callers enough to keep every instance busy, and its queue filled once over."""
    callers = 2 * deployment.serving.instances * deployment.serving.max_batch
    result = run_load(target, Load(kind="closed", value=callers), _SATURATED_S, seed=1)
    return msgspec.structs.replace(result.throughput_rps, method=f"{callers} callers in a closed loop over loopback")


def _speed(deployment: Deployment, capacity: Figure) -> float:
    """How fast the engine is beside the server and its clients: 1 where they take nothing of its machine."""
    serving = deployment.serving
    layout = (serving.instances, serving.threads)
    own = [t for t in deployment.times if (t.instances, t.threads) == layout and t.batch <= serving.max_batch]
    most = max((t.rows_per_s.value or 0.0 for t in own), default=0.0)
    return min(1.0, (capacity.value or most) / most) if most else 1.0


def _moved(deployment: Deployment, load_rps: float) -> str:
    """Where the load was a share of what the engine carries, the server may carry less."""
    if abs(deployment.predicted.load_rps / load_rps - 1) < _SAME_LOAD:
        return ""
    return f" Beside its server it was tried at {load_rps:.4g} requests/s, the same share of what the two carry."


def _told(asked: Asked, deployment: Deployment, found: Rehearsal, speed: float) -> str:
    """Where the rehearsal missed an objective: how much faster the machine would have to be."""
    slo, names = asked.goal.slo, ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms")
    missed = [n for n in names if getattr(slo, n) is not None and (getattr(found, n).value or 0.0) > getattr(slo, n)]
    if not missed:
        return ""
    needed = speed_needed(_question(asked), deployment.serving, found.load_rps, speed=speed)
    name = missed[0]
    if needed == 1.0:
        return f" By simulation it should meet {name} {getattr(slo, name):g}; the real server was slower than that."
    if needed is None:
        return f" No machine of this kind would meet {name} {getattr(slo, name):g}."
    return f" To meet {name} {getattr(slo, name):g} the machine would have to be {needed:.2g} times as fast."
