"""Cost per million predictions, from throughput and the price of the machine."""

from __future__ import annotations

from hasten.spec.measurement import Figure, unmeasured
from hasten.spec.slo import Prices

__all__ = ["cost_per_million"]


def cost_per_million(throughput_rps: Figure, prices: Prices) -> Figure:
    """Return dollars per million predictions on a machine kept busy by one instance; an unpriced machine has none."""
    if prices.machine_hour_usd is None:
        return unmeasured("no price given ([prices] machine_hour_usd)")
    if throughput_rps.value is None:
        return unmeasured(throughput_rps.reason or "no throughput measured")

    def cost(rate: float | None) -> float | None:
        assert prices.machine_hour_usd is not None
        return prices.machine_hour_usd / 3600 / rate * 1e6 if rate else None

    return Figure(
        value=cost(throughput_rps.value),
        low=cost(throughput_rps.high),
        high=cost(throughput_rps.low),
        n=throughput_rps.n,
        method="estimated from throughput and price, machine fully busy",
    )
