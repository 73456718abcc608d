"""What the main job asks of whoever knows servers: serving defaults for a variant, and a rehearsal of the real server.

The search does not import the server (they meet in the bundle); the facade hands it a `Deployer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hasten.data.dataset import Subset
from hasten.data.feed import feed, sample_for
from hasten.engine.host import environment
from hasten.measure.contention import Watch
from hasten.measure.service import Open, measure_service, shape_keys
from hasten.spec.serving import Deployment, ServiceTimes
from hasten.spec.signature import Signature
from hasten.spec.slo import Goal
from hasten.spec.variant import Variant

__all__ = ["Asked", "Deployer", "ask", "deployment_line"]

# Different requests that a rehearsal sends: enough for the times to vary as the data does.
_SENT = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A variant that wants serving defaults: its service times in every layout, shape keys of the data (requests with
    equal keys can share a batch), some inputs as clients send them, and the goal.
    """

    variant: str
    times: Sequence[ServiceTimes]
    keys: Sequence[str]
    inputs: Sequence[dict[str, np.ndarray[Any, Any]]]
    goal: Goal
    seed: int = 0


class Deployer(Protocol):
    """Chooses how a variant is served, and tries it."""

    def choose(self, asked: Asked) -> Deployment:
        """Return serving defaults by simulation over measured service times."""
        ...

    def rehearse(self, asked: Asked, deployment: Deployment, bundle: Path) -> Deployment:
        """Serve `bundle` for real at the load of `deployment`, and return it with what was found; unchanged where there
        is no server to try. Raises `EngineError` where the server does not start.
        """
        ...


def ask(
    variant: Variant,
    open_arm: Open,
    data: Subset,
    signature: Signature,
    sizes: Sequence[int],
    watch: Watch,
    goal: Goal,
    seed: int,
) -> Asked:
    """Measure a variant's service times on tuning data; all that a deployer needs. Raises `EngineError`."""
    cores = environment().cores_physical
    times = measure_service(open_arm, variant.target, data, sizes, cores, watch, seed=seed)
    sent = np.linspace(0, len(data) - 1, min(_SENT, len(data))).astype(int)
    inputs = [feed(signature, [sample_for(signature, data, int(at))]) for at in sent]
    keys = shape_keys(signature, data)
    return Asked(variant=variant.id, times=times, keys=keys, inputs=inputs, goal=goal, seed=seed)


def deployment_line(deployment: Deployment) -> str:
    """One deployment in one line."""
    predicted, found = deployment.predicted, deployment.rehearsed
    words = f"{deployment.variant}: {deployment.serving}; at {predicted.load_rps:.4g}/s"
    p99 = predicted.latency_p99_ms.value
    words += f" p99 {p99:.1f} ms predicted" if p99 is not None else ""
    if found is None:
        return words
    if found.latency_p99_ms.value is None:
        return f"{words}, p99 not measured: {found.latency_p99_ms.reason}"
    return f"{words}, {found.latency_p99_ms.value:.1f} ms measured"
