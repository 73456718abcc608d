"""How a variant is served, and what that is predicted and found to give: the deployment part of the answer."""

from __future__ import annotations

import msgspec

from hasten.spec.measurement import NOT_MEASURED, Figure
from hasten.spec.target import Count, CountOrDefault, Target
from hasten.spec.values import Value

__all__ = ["Deployment", "Prediction", "Rehearsal", "ServiceTimes", "Serving"]


class Serving(Value, frozen=True):
    """The serving defaults of one variant: `instances` engine processes with `threads` each (0: the engine's default),
    batches of at most `max_batch` rows, for which a request waits at most `max_delay_ms`.
    """

    instances: Count = 1
    threads: CountOrDefault = 0
    max_batch: Count = 1
    max_delay_ms: float = 0.0

    def one(self, target: Target) -> Target:
        """Return what one instance runs on. Several are left to the scheduler: each would pin its threads to the same
        first cores, and leave the others idle.
        """
        return msgspec.structs.replace(target, threads=self.threads, pin=target.pin and self.instances == 1)

    def __str__(self) -> str:
        processes = f"{self.instances} instance{'s' if self.instances > 1 else ''}"
        threads = f"{self.threads} thread{'s' if self.threads != 1 else ''} each" if self.threads else "default threads"
        batch = f"batches of at most {self.max_batch}" if self.max_batch > 1 else "no batching"
        delay = f", waiting at most {self.max_delay_ms:g} ms" if self.max_delay_ms else ""
        return f"{processes}, {threads}, {batch}{delay}"


class ServiceTimes(Value, frozen=True):
    """How long batches of one size take in one layout, all instances busy with batches of that size: milliseconds of
    single runs, in time order. `alone_ms` are those of one instance while the others rest. Where a server was seen,
    `briefly_ms` are those of batches that had to wait at a medium load, and `waited_ms` those of batches that waited
    when more came than it carries, and the handling of that pressed on the engines.
    """

    instances: int
    threads: int
    batch: int
    busy_ms: tuple[float, ...]
    alone_ms: tuple[float, ...] = ()
    briefly_ms: tuple[float, ...] = ()
    waited_ms: tuple[float, ...] = ()
    rows_per_s: Figure = NOT_MEASURED


class Prediction(Value, frozen=True):
    """What the simulated server gives at `load_rps`: end to end in ms, with the spread over simulated runs as interval.
    `utilisation` is the share of time that instances are busy.
    """

    load_rps: float
    latency_p50_ms: Figure
    latency_p95_ms: Figure
    latency_p99_ms: Figure
    throughput_rps: Figure
    utilisation: float


class Rehearsal(Value, frozen=True):
    """What the real server gave at the same load, from an open loop of Poisson arrivals. `offered_rps` is the rate at
    which they really came, since chance has its part in it. `failed` are all requests that got no answer: refused,
    broken, not answered or not even sent in time. `late` are those that their sender sent more than 5 ms after they
    were due; their latency counts from when they were due all the same.
    """

    load_rps: float
    offered_rps: float
    latency_p50_ms: Figure
    latency_p95_ms: Figure
    latency_p99_ms: Figure
    throughput_rps: Figure
    failed: int = 0
    late: int = 0


class Deployment(Value, frozen=True):
    """The serving part of the answer for one variant: the chosen defaults, at which load they were chosen and why, what
    they can carry at most, and what was predicted and found. `considered` are the other settings with their
    predictions, the best first.
    """

    variant: str
    serving: Serving
    reason: str
    capacity_rps: Figure
    cost_per_million_usd: Figure
    predicted: Prediction
    rehearsed: Rehearsal | None = None
    considered: tuple[tuple[Serving, Prediction], ...] = ()
    times: tuple[ServiceTimes, ...] = ()
