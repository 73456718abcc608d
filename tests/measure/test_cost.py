"""Cost per million predictions, and per million right ones: never better than the figures that it comes from."""

from __future__ import annotations

import pytest

from hasten.data.metrics import metric_named
from hasten.measure.cost import cost_per_million, cost_per_million_correct, costs
from hasten.spec.measurement import Figure, unmeasured
from hasten.spec.slo import Prices

RATE = Figure(value=100.0, low=50.0, high=200.0, n=10)
PRICES = Prices(machine_hour_usd=0.36)
ACCURACY = Figure(value=0.8, low=0.5, high=1.0, n=40)


def test_cost_follows_throughput_and_price_and_has_none_without() -> None:
    cost = cost_per_million(RATE, PRICES)
    assert (cost.value, cost.low, cost.high) == pytest.approx((1.0, 0.5, 2.0))
    assert "no price" in (cost_per_million(RATE, Prices()).reason or "")
    assert "nothing was predicted" in (cost_per_million(Figure(value=0.0, low=0, high=0, n=0), PRICES).reason or "")


def test_right_predictions_cost_more_and_the_interval_joins_the_bad_ends_of_both() -> None:
    cost = cost_per_million_correct(cost_per_million(RATE, PRICES), ACCURACY, metric_named("top1"))
    assert (cost.value, cost.low, cost.high) == pytest.approx((1.25, 0.5, 4.0))
    assert cost.n == 10


@pytest.mark.parametrize(
    ("metric", "accuracy", "reason"),
    [
        ("agreement", ACCURACY, "without labels"),
        ("char_error_rate", ACCURACY, "char_error_rate does not say of an answer whether it is right"),
        ("top1", Figure(value=0.0, low=0.0, high=0.1, n=40), "no answer was right"),
        ("top1", unmeasured("no samples"), "no samples"),
    ],
)
def test_where_nobody_knows_what_is_right_there_is_a_reason(metric: str, accuracy: Figure, reason: str) -> None:
    cost = cost_per_million_correct(cost_per_million(RATE, PRICES), accuracy, metric_named(metric))
    assert cost.value is None
    assert reason in (cost.reason or "")


def test_an_accuracy_that_may_be_zero_leaves_the_upper_bound_open() -> None:
    accuracy = Figure(value=0.1, low=0.0, high=0.3, n=10)
    assert cost_per_million_correct(cost_per_million(RATE, PRICES), accuracy, metric_named("top1")).high is None


def test_what_is_right_is_told_by_the_first_metric_that_can() -> None:
    figures = {"throughput_rps": RATE, "accuracy": Figure(value=0.05, low=0.0, high=0.1, n=40), "exact_match": ACCURACY}
    both = costs(figures, [metric_named("char_error_rate"), metric_named("exact_match")], PRICES)
    assert both["cost_per_million_correct_usd"].value == pytest.approx(1.25)
    alone = costs(figures, [metric_named("char_error_rate")], PRICES)
    assert "char_error_rate" in (alone["cost_per_million_correct_usd"].reason or "")
