"""Serving defaults that were tried: chosen by simulation, then put to the test on the real server. Part of the facade.

The server runs in a process of its own, as `hasten serve` starts it, and requests come over loopback from an open loop
of Poisson arrivals (`hasten.rehearsal`). What is predicted was not seen: each prediction is made before its load, from
looks at the server under other loads.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import msgspec
import numpy as np

from hasten.bundle.read import open_bundle
from hasten.errors import EngineError
from hasten.fleet.capacity import COMFORTABLE, Question, choose, predict, speed_needed
from hasten.observe.follow import Follower
from hasten.optimize.deploy import Asked
from hasten.rehearsal import Rehearsing, capacity_of, conclude, shuffled
from hasten.spec.serving import Deployment, Prediction, Rehearsal
from hasten.stats.percentiles import values_needed
from hasten.wire.oip_client import encode_request

__all__ = ["RealDeployer", "rehearsing", "served"]

_OTHERS = 6
_SAME_LOAD = 0.02
# A rehearsal in all, and in how many turns; the first requests warm the server up.
_SHORTEST_S, _LONGEST_S, _TURNS = 6.0, 40.0, 4
# Turns that others disturbed are made again, up to so many in all.
_MOST_TURNS = 6
_WARMUP_S = 0.5


class RealDeployer:
    """The deployer of the command line: simulates with `fleet`, serves with `hasten serve`."""

    def choose(self, asked: Asked) -> Deployment:
        """Return serving defaults by simulation."""
        return choose(_question(asked))

    def rehearse(self, asked: Asked, deployment: Deployment, bundle: Path) -> Deployment:
        """Serve the bundle, predict once more with what the server itself takes, and put the load on."""
        if importlib.util.find_spec("httptools") is None:
            return deployment
        with rehearsing(bundle, _question(asked), deployment, asked.inputs) as rehearsal:
            return _tried(asked, rehearsal)


@contextlib.contextmanager
def rehearsing(
    bundle: Path, question: Question, deployment: Deployment, inputs: Sequence[dict[str, np.ndarray[Any, Any]]]
) -> Generator[Rehearsing]:
    """Serve a bundle, with a log of its requests, and have a sender of `inputs` at hand. Raises `EngineError`."""
    # Only here: it needs what comes with the server.
    from hasten.sender import Sender

    manifest = open_bundle(bundle).manifest
    bodies = shuffled([encode_request(one, manifest.signature) for one in inputs], question.seed)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "requests.log"
        with served(bundle, log) as url:
            parts = urlsplit(url)
            sender = Sender((parts.hostname or "", parts.port or 80), f"/v2/models/{manifest.name}/infer", bodies)
            with contextlib.closing(sender):
                sender.closed_loop(2 * deployment.serving.instances, _WARMUP_S)
                yield Rehearsing(question=question, deployment=deployment, sender=sender, log=Follower(log))


def _tried(asked: Asked, rehearsal: Rehearsing) -> Deployment:
    deployment, serving = rehearsal.deployment, rehearsal.serving
    first = rehearsal.look()
    load = asked.goal.slo.throughput_rps or COMFORTABLE * first.capacity_rps
    turn_s = float(np.clip(1.5 * values_needed(99) / load, _SHORTEST_S, _LONGEST_S)) / _TURNS
    stretches = [rehearsal.load(load, turn_s, 0)]
    while sum(not one.disturbed for one in stretches) < _TURNS and len(stretches) < _MOST_TURNS:
        rehearsal.look()
        stretches.append(rehearsal.load(load, turn_s, len(stretches)))
    # Nothing is chosen by what it gave. Where others never left the machine alone, it counts as it was.
    quiet = [one for one in stretches if not one.disturbed]
    predicted, found = conclude(quiet if len(quiet) == _TURNS else stretches, serving)
    # The others anew as well: next to each other stand only predictions for one load on one machine.
    question = rehearsal.asked()
    others = [other for other, _ in deployment.considered[:_OTHERS]]
    return msgspec.structs.replace(
        deployment,
        predicted=predicted,
        rehearsed=found,
        considered=tuple((other, predict(question, other, load)) for other in others),
        capacity_rps=capacity_of(rehearsal.looks, serving),
        reason=deployment.reason
        + _moved(deployment, load)
        + _missed(asked, deployment, found, question)
        + _apart(predicted, found),
    )


def _question(asked: Asked) -> Question:
    return Question(variant=asked.variant, times=asked.times, keys=asked.keys, goal=asked.goal, seed=asked.seed)


@contextlib.contextmanager
def served(bundle: Path, requests: Path | None = None) -> Generator[str]:
    """Serve a bundle in a process of its own while the block runs, with a record of each request in the file
    `requests`; the URL where it listens. Raises `EngineError`.
    """
    command = [sys.executable, "-m", "hasten.cli", "serve", str(bundle), "--http", "127.0.0.1:0", "--json"]
    command += ["--log", str(requests), "--log-requests"] if requests else []
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


def _moved(deployment: Deployment, load_rps: float) -> str:
    """Where the load was a share of what the engine carries, the server may carry less."""
    if abs(deployment.predicted.load_rps / load_rps - 1) < _SAME_LOAD:
        return ""
    return f" Beside its server it was tried at {load_rps:.4g} requests/s, the same share of what the two carry."


def _missed(asked: Asked, deployment: Deployment, found: Rehearsal, question: Question) -> str:
    """Where the rehearsal missed an objective: how much faster the machine would have to be."""
    slo, names = asked.goal.slo, ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms")
    missed = [n for n in names if getattr(slo, n) is not None and (getattr(found, n).value or 0.0) > getattr(slo, n)]
    if not missed:
        return ""
    needed = speed_needed(question, deployment.serving, found.load_rps)
    name = missed[0]
    if needed == 1.0:
        return f" By simulation it should meet {name} {getattr(slo, name):g}; the real server was slower than that."
    if needed is None:
        return f" No machine of this kind would meet {name} {getattr(slo, name):g}."
    return f" To meet {name} {getattr(slo, name):g} the machine would have to be {needed:.2g} times as fast."


def _apart(predicted: Prediction, found: Rehearsal) -> str:
    """Where prediction and measurement disagree by more than chance explains."""
    told, seen = predicted.latency_p99_ms, found.latency_p99_ms
    if told.value is None or seen.value is None or seen.low is None:
        return ""
    if seen.low <= told.value <= (seen.high or float("inf")):
        return ""
    return (
        f" The simulation had predicted a p99 of {told.value:.1f} ms, outside of the interval of what was measured: "
        f"the measured {seen.value:.1f} ms count."
    )
