"""The server in simulated time gives what queueing theory says, and loses nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.fleet.simulate import Outside, Service, poisson, simulate
from hasten.serve.core import Policy
from hasten.spec.serving import ServiceTimes

MS = 1e3


def times(busy_ms: float, *, instances: int = 1, batch: int = 1, alone_ms: float | None = None) -> ServiceTimes:
    alone = busy_ms if alone_ms is None else alone_ms
    return ServiceTimes(instances=instances, threads=1, batch=batch, busy_ms=(busy_ms,), alone_ms=(alone,))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_lone_request_takes_just_its_service_time() -> None:
    played = simulate(Policy(), Service([times(10.0)]), [0.0, 1.0], [], rng())
    assert played.latencies_s == pytest.approx([0.01, 0.01])


def test_waiting_at_a_single_instance_is_what_pollaczek_and_khinchine_say() -> None:
    """M/D/1: the mean wait is rho / (2 (1 - rho)) service times."""
    load, service = 70.0, 0.01
    played = simulate(Policy(queue_capacity=10**6), Service([times(10.0)]), poisson(load, 60_000, rng()), [], rng(1))
    rho = load * service
    expected = service * (1 + rho / (2 * (1 - rho)))
    assert np.mean(played.latencies_s) == pytest.approx(expected, rel=0.03)
    assert played.utilisation(1) == pytest.approx(rho, rel=0.02)


def test_two_instances_carry_twice_the_load_of_one() -> None:
    arrivals = poisson(150.0, 5000, rng())
    one = simulate(Policy(queue_capacity=10**6), Service([times(10.0)]), arrivals, [], rng(1))
    two = simulate(Policy(instances=2, queue_capacity=10**6), Service([times(10.0, instances=2)]), arrivals, [], rng(1))
    assert max(one.latencies_s) > 1.0
    assert np.percentile(two.latencies_s, 99) < 0.1


def test_an_instance_that_works_alone_is_faster_than_one_among_busy_ones() -> None:
    service = Service([times(20.0, instances=2, alone_ms=10.0)])
    assert service.draw(1, 0.0, rng()).engine_s == 0.01
    assert service.draw(1, 1.0, rng()).engine_s == 0.02


def test_a_batch_that_had_to_wait_takes_as_long_as_those_that_were_seen_to_wait() -> None:
    waited = ServiceTimes(instances=1, threads=1, batch=1, busy_ms=(10.0,), waited_ms=(15.0,))
    assert Service([waited]).draw(1, 2.0, rng()).engine_s == 0.015
    played = simulate(Policy(), Service([waited]), [0.0, 0.001], [], rng())
    assert played.latencies_s == pytest.approx([0.010, 0.024])


def test_who_waits_longer_meets_an_overloaded_server_more_often() -> None:
    states = ServiceTimes(
        instances=1, threads=1, batch=1, busy_ms=(10.0,), briefly_ms=(10.0,) * 50, waited_ms=(20.0,) * 50
    )
    service, dice = Service([states]), rng()
    drawn = {
        crowding: np.mean([service.draw(1, crowding, dice).engine_s for _ in range(2000)]) for crowding in (1.1, 1.9)
    }
    assert drawn == pytest.approx({1.1: 0.011, 1.9: 0.019}, rel=0.05)
    pairs = [float(at + second * 0.001) for at in range(500) for second in (0, 1)]
    burst = [0.0] * 500
    short, long = (
        simulate(Policy(queue_capacity=1000), service, due, [], rng()).busy_s / len(due) for due in (pairs, burst)
    )
    assert short < 0.0135
    assert long > 0.0185


def test_an_instance_is_free_for_the_next_batch_only_after_what_passes_between_two() -> None:
    played = simulate(Policy(), Service([times(10.0)], Outside(between_ms=2.0)), [0.0, 0.001], [], rng())
    assert played.latencies_s == pytest.approx([0.010, 0.021])


def test_what_is_spent_outside_comes_on_top_and_holds_up_nobody() -> None:
    outside = Outside(alone_ms=(3.0,), waited_ms=(5.0,))
    played = simulate(Policy(), Service([times(10.0)], outside), [0.0, 0.001], [], rng())
    assert played.latencies_s == pytest.approx([0.013, 0.024])


def test_what_held_up_a_batch_inside_and_outside_of_its_engine_is_drawn_together() -> None:
    seen = ServiceTimes(instances=1, threads=1, batch=1, busy_ms=(1.0,) * 90 + (10.0,) * 10)
    together = Service([seen], Outside(busy_ms=(2.0,) * 90 + (20.0,) * 10))
    dice = rng()
    drawn = {together.draw(1, 1.0, dice) for _ in range(3000)}
    assert drawn == {(0.001, 0.002), (0.01, 0.02)}


def test_what_was_not_seen_of_the_same_batches_is_drawn_apart() -> None:
    seen = ServiceTimes(instances=1, threads=1, batch=1, busy_ms=(1.0, 10.0))
    apart, dice = Service([seen], Outside(busy_ms=(2.0, 2.0, 20.0))), rng()
    drawn = {apart.draw(1, 1.0, dice) for _ in range(3000)}
    assert drawn == {(engine, outside) for engine in (0.001, 0.01) for outside in (0.002, 0.02)}


def test_slow_spells_last_in_simulation_as_they_did_when_they_were_measured() -> None:
    spells = ServiceTimes(instances=1, threads=1, batch=1, busy_ms=(1.0,) * 50 + (2.0,) * 50)
    service, dice = Service([spells]), rng()
    drawn = np.array([service.draw(1, 1.0, dice).engine_s for _ in range(3000)])
    assert np.corrcoef(drawn[:-1], drawn[1:])[0, 1] > 0.8
    assert np.mean(drawn) == pytest.approx(0.0015, rel=0.15)


def test_times_between_measured_batches_are_interpolated_and_beyond_them_grow_in_proportion() -> None:
    service = Service([times(10.0), times(20.0, batch=4)])
    assert service.draw(2, 1, rng()).engine_s == pytest.approx((10 + 10 / 3) / MS)
    assert service.draw(8, 1, rng()).engine_s == pytest.approx(40 / MS)


def test_a_faster_machine_divides_all_times() -> None:
    assert Service([times(10.0)], speed=2.0).draw(1, 1, rng()).engine_s == 0.005


def test_only_requests_of_one_shape_share_a_batch() -> None:
    policy = Policy(max_batch=4, queue_capacity=100)
    service = Service([times(10.0), times(10.0, batch=4)])
    burst = [0.0] * 41
    alike = simulate(policy, service, burst, ["a"], rng())
    mixed = simulate(policy, service, burst, [str(key) for key in range(1000)], rng())
    assert alike.batches == 11
    assert mixed.batches > 35


def test_the_same_seed_plays_the_same_run() -> None:
    runs = [
        simulate(Policy(max_batch=4), Service([times(3.0), times(5.0, batch=4)]), poisson(300, 500, rng(2)), [], rng(3))
        for _ in range(2)
    ]
    assert runs[0].latencies_s == runs[1].latencies_s


@settings(deadline=None, max_examples=60)
@given(
    instances=st.integers(1, 3),
    max_batch=st.integers(1, 4),
    delay=st.sampled_from([0.0, 0.005]),
    capacity=st.integers(1, 50),
    rate=st.floats(10, 2000),
)
def test_every_request_is_answered_or_refused(
    instances: int, max_batch: int, delay: float, capacity: int, rate: float
) -> None:
    policy = Policy(instances=instances, max_batch=max_batch, max_delay_s=delay, queue_capacity=capacity)
    service = Service([times(4.0, instances=instances), times(9.0, instances=instances, batch=4)])
    played = simulate(policy, service, poisson(rate, 200, rng()), ["a", "b"], rng(1))
    assert len(played.latencies_s) + played.refused == 200
    assert min(played.latencies_s) >= 0.004 - 1e-9
    assert 0 <= played.utilisation(instances) <= 1 + 1e-9
