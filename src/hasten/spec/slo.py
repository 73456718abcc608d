"""Service-level objectives, what to minimize, and prices: the content of `slo.toml`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from hasten.spec.values import Value

__all__ = ["Goal", "Minimize", "Objective", "Prices", "Slo"]

Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0)]
Minimize = Literal["latency_p50_ms", "latency_p99_ms", "cost_per_million", "energy_per_prediction_j", "memory_mb"]


class Slo(Value, frozen=True):
    """Bounds that a deployment must meet. `None` means no bound. `accuracy_drop_max` is in the metric's own unit."""

    latency_p50_ms: Positive | None = None
    latency_p95_ms: Positive | None = None
    latency_p99_ms: Positive | None = None
    throughput_rps: Positive | None = None
    accuracy_drop_max: Share = 0.005
    memory_max_mb: Positive | None = None


class Objective(Value, frozen=True):
    """What to minimize among the deployments that meet the bounds."""

    minimize: Minimize = "latency_p50_ms"


class Prices(Value, frozen=True):
    """What a machine costs, in money and in power.

    `machine_hour_usd`: for cost per prediction. `processor_tdp_w`: the thermal design power of the processor in watts,
    from its data sheet. It is asked for where no energy counter can be read; what follows from it is an estimate and
    is called that.
    """

    machine_hour_usd: Positive | None = None
    processor_tdp_w: Positive | None = None


class Goal(Value, frozen=True):
    """The whole of `slo.toml`."""

    slo: Slo = Slo()
    objective: Objective = Objective()
    prices: Prices = Prices()
