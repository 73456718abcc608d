"""Which serving defaults are chosen, at which load, and what a machine would need that cannot carry it."""

from __future__ import annotations

import pytest

from hasten.fleet.capacity import COMFORTABLE, Question, choose, predict, speed_needed
from hasten.fleet.simulate import Outside
from hasten.spec.measurement import Figure
from hasten.spec.serving import ServiceTimes, Serving
from hasten.spec.slo import Goal, Prices, Slo


def times(instances: int, threads: int, batch: int, busy_ms: float, alone_ms: float | None = None) -> ServiceTimes:
    alone = busy_ms if alone_ms is None else alone_ms
    rate = instances * batch * 1e3 / busy_ms
    return ServiceTimes(
        instances=instances,
        threads=threads,
        batch=batch,
        busy_ms=(busy_ms,),
        alone_ms=(alone,),
        rows_per_s=Figure(value=rate, low=rate, high=rate, n=4),
    )


# One instance on two threads answers in 10 ms; two on one thread each answer in 16 ms and carry more together.
LAYOUTS = [times(1, 2, 1, 10.0), times(2, 1, 1, 16.0)]


def question(cells: list[ServiceTimes] | None = None, **slo: float) -> Question:
    goal = Goal(slo=Slo(**slo), prices=Prices(machine_hour_usd=0.36))
    return Question(variant="v", times=cells or LAYOUTS, keys=["a"], goal=goal)


def test_at_a_light_load_the_layout_that_answers_soonest_is_chosen() -> None:
    found = choose(question(throughput_rps=5, latency_p50_ms=40))
    assert (found.serving.instances, found.serving.threads) == (1, 2)
    assert "lowest predicted latency_p50_ms at 5 requests/s" in found.reason


def test_where_the_tail_counts_a_second_instance_spares_the_wait_behind_another_request() -> None:
    found = choose(question(throughput_rps=5, latency_p99_ms=40))
    assert (found.serving.instances, found.serving.threads) == (2, 1)


def test_at_a_load_that_only_both_instances_carry_both_are_chosen() -> None:
    found = choose(question(throughput_rps=108))
    assert found.serving.instances == 2


def test_batching_is_chosen_where_only_batches_carry_the_load() -> None:
    cells = [times(1, 2, 1, 10.0), times(1, 2, 4, 16.0)]
    assert choose(question(cells, throughput_rps=180)).serving.max_batch == 4
    assert choose(question(cells, throughput_rps=5, latency_p50_ms=30)).serving.max_batch == 1


def test_without_a_load_a_comfortable_share_of_the_capacity_is_asked_about() -> None:
    found = choose(question())
    assert found.capacity_rps.value == pytest.approx(125.0)
    assert found.predicted.load_rps == pytest.approx(COMFORTABLE * 125.0)


def test_what_was_not_chosen_is_kept_with_its_prediction_the_best_first() -> None:
    found = choose(question(throughput_rps=5, latency_p50_ms=40))
    assert [serving.instances for serving, _ in found.considered] == [2]


def test_an_objective_that_no_setting_meets_is_named() -> None:
    found = choose(question(throughput_rps=60, latency_p99_ms=5))
    assert found.reason.startswith("No setting meets latency_p99_ms at 60 requests/s")


def test_cost_is_the_price_of_the_machine_over_the_load_that_it_serves() -> None:
    found = choose(question(throughput_rps=50))
    assert found.cost_per_million_usd.value == pytest.approx(0.36 / 3600 / 50 * 1e6)
    assert choose(Question(variant="v", times=LAYOUTS, keys=[], goal=Goal())).cost_per_million_usd.value is None


def test_what_a_request_spends_outside_the_engine_is_added() -> None:
    serving, slow = Serving(instances=1, threads=2), question(throughput_rps=5)
    plain = predict(slow, serving, 5.0).latency_p50_ms.value
    more = predict(
        Question(variant="v", times=LAYOUTS, keys=[], goal=Goal(), outside=Outside(alone_ms=(3.0,))), serving, 5.0
    )
    assert plain == pytest.approx(10.0)
    assert more.latency_p50_ms.value == pytest.approx(13.0)


def test_the_speed_that_a_machine_lacks_is_found() -> None:
    serving = Serving(instances=1, threads=2)
    assert speed_needed(question(throughput_rps=5, latency_p50_ms=20), serving, 5.0) == 1.0
    assert speed_needed(question(throughput_rps=5, latency_p50_ms=5), serving, 5.0) == pytest.approx(2.0, rel=0.05)
    assert speed_needed(question(throughput_rps=5, latency_p50_ms=0.01), serving, 5.0) is None
