"""Cost per million predictions, and per million right ones, from throughput and the price of the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hasten.data.metrics import Metric
from hasten.spec.measurement import Figure, unmeasured
from hasten.spec.slo import Prices

__all__ = ["cost_per_million", "cost_per_million_correct", "costs"]


def costs(figures: Mapping[str, Figure], metrics: Sequence[Metric], prices: Prices) -> dict[str, Figure]:
    """Return `cost_per_million_usd` and `cost_per_million_correct_usd` from what the meters found.

    What is right is told by the first metric of the data that calls each answer right or wrong; where there is none,
    the first metric says why not.
    """
    whole = cost_per_million(figures["throughput_rps"], prices)
    places = [place for place, metric in enumerate(metrics) if metric.kind == "binary" and metric.name != "agreement"]
    place = places[0] if places else 0
    accuracy = figures["accuracy" if place == 0 else metrics[place].name]
    right = cost_per_million_correct(whole, accuracy, metrics[place])
    return {"cost_per_million_usd": whole, "cost_per_million_correct_usd": right}


def cost_per_million(throughput_rps: Figure, prices: Prices) -> Figure:
    """Return dollars per million predictions on a machine kept busy by one instance; an unpriced machine has none."""
    if prices.machine_hour_usd is None:
        return unmeasured("no price given ([prices] machine_hour_usd)")
    if throughput_rps.value is None:
        return unmeasured(throughput_rps.reason or "no throughput measured")

    def cost(rate: float | None) -> float | None:
        assert prices.machine_hour_usd is not None
        return prices.machine_hour_usd / 3600 / rate * 1e6 if rate else None

    value = cost(throughput_rps.value)
    if value is None:
        return unmeasured("nothing was predicted")
    return Figure(
        value=value,
        low=cost(throughput_rps.high),
        high=cost(throughput_rps.low),
        n=throughput_rps.n,
        method="estimated from throughput and price, machine fully busy",
    )


def cost_per_million_correct(cost_usd: Figure, accuracy: Figure, metric: Metric) -> Figure:
    """Return dollars per million right predictions: the cost of a million over the share that is right.

    Only where each answer is right or wrong by its label. The interval joins the unfavourable ends of both, so that it
    covers with at least 90 % (Bonferroni), and in practice with more than 95 %: both ends would have to miss at once.
    """
    if metric.name == "agreement":
        return unmeasured("without labels nobody knows which answers are right, only which agree with the reference")
    if metric.kind != "binary":
        return unmeasured(f"{metric.name} does not say of an answer whether it is right")
    for figure in (cost_usd, accuracy):
        if figure.value is None:
            return unmeasured(figure.reason or "not measured")
    assert cost_usd.value is not None and accuracy.value is not None
    if accuracy.value == 0:
        return unmeasured("no answer was right")

    def over(cost: float | None, share: float | None) -> float | None:
        return cost / share if cost is not None and share else None

    return Figure(
        value=cost_usd.value / accuracy.value,
        low=over(cost_usd.low, accuracy.high),
        high=over(cost_usd.high, accuracy.low),
        n=min(cost_usd.n, accuracy.n),
        method=f"{cost_usd.method}; over {metric.name}",
    )
