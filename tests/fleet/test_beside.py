"""From what a server's log tells to what the simulation draws from."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.fleet.beside import Moved, Seen, beside_of, moved_between
from hasten.spec.serving import ServiceTimes, Serving

SERVING = Serving(instances=2, threads=1)
REST = [
    ServiceTimes(instances=2, threads=1, batch=1, busy_ms=(10.0,), alone_ms=(8.0,)),
    ServiceTimes(instances=1, threads=2, batch=1, busy_ms=(6.0,), alone_ms=(6.0,)),
]


def seen(began_s: float, engine_ms: float, queue_ms: float = 0.0, outside_ms: float = 1.0, batch: int = 1) -> Seen:
    return Seen(began_s=began_s, engine_ms=engine_ms, queue_ms=queue_ms, outside_ms=outside_ms, batch=batch)


# Twenty that met an idle server, then twenty pairs of which the second met the first; and twenty that waited.
ALONE = [seen(at, 12.0, outside_ms=1.0) for at in range(20)]
PAIRS = [
    one for at in range(20, 40) for one in (seen(at, 12.0, outside_ms=1.0), seen(at + 0.005, 14.0, outside_ms=2.0))
]
WAITED = [seen(100 + at / 100, 15.0, queue_ms=30.0, outside_ms=3.0) for at in range(20)]


def test_requests_are_told_apart_by_the_state_in_which_they_met_the_server() -> None:
    beside = beside_of(REST, SERVING, [*ALONE, *PAIRS], WAITED, 140.0)
    own = beside.times[0]
    assert (set(own.alone_ms), set(own.busy_ms), set(own.waited_ms)) == ({12.0}, {14.0}, {15.0})
    outside = beside.outside
    assert (set(outside.alone_ms), set(outside.busy_ms), set(outside.waited_ms)) == ({1.0}, {2.0}, {3.0})
    assert beside.capacity_rps == 140.0


def test_layouts_that_were_not_served_are_as_much_slower_as_the_one_that_was() -> None:
    other = beside_of(REST, SERVING, [*ALONE, *PAIRS], WAITED, 140.0).times[1]
    assert other.alone_ms == pytest.approx((6.0 * 12 / 8,))
    assert other.waited_ms == pytest.approx((6.0 * 15 / 10,))


def test_a_state_that_was_hardly_seen_is_what_was_measured_at_rest_and_as_much_slower() -> None:
    own = beside_of(REST, SERVING, ALONE, WAITED, 140.0).times[0]
    assert own.busy_ms == pytest.approx((15.0,))


def test_where_nothing_was_seen_times_stay_as_they_are_at_rest() -> None:
    own = beside_of(REST, SERVING, [], [], 140.0).times[0]
    assert (own.alone_ms, own.busy_ms, own.waited_ms) == ((8.0,), (10.0,), (10.0,))


def test_a_batch_counts_once_however_many_requests_were_in_it() -> None:
    rest = [ServiceTimes(instances=1, threads=2, batch=size, busy_ms=(float(size),)) for size in (1, 2)]
    full = [seen(at, 5.0 + at, queue_ms=9.0, batch=2) for at in range(15) for _ in range(2)]
    pairs = beside_of(rest, Serving(threads=2, max_batch=2), [], full, 9.0).times[1]
    assert pairs.waited_ms == tuple(5.0 + at for at in range(15))


BRIEFLY = [seen(50 + at, 13.0, queue_ms=2.0, outside_ms=1.5) for at in range(20)]


def test_who_waited_at_a_medium_load_is_told_from_who_waited_in_overload() -> None:
    beside = beside_of(REST, SERVING, [*ALONE, *PAIRS, *BRIEFLY], WAITED, 140.0)
    own = beside.times[0]
    assert (set(own.briefly_ms), set(own.waited_ms)) == ({13.0}, {15.0})
    assert (set(beside.outside.briefly_ms), set(beside.outside.waited_ms)) == ({1.5}, {3.0})


def test_a_few_who_waited_at_a_medium_load_tell_nothing() -> None:
    beside = beside_of(REST, SERVING, [*ALONE, *BRIEFLY[:5]], WAITED, 140.0)
    assert (beside.times[0].briefly_ms, beside.outside.briefly_ms) == ((), ())


@pytest.mark.parametrize(("capacity_rps", "between_ms"), [(100.0, 5.0), (125.0, 1.0), (160.0, 0.0)])
def test_what_instances_need_between_batches_follows_from_what_they_carry(
    capacity_rps: float, between_ms: float
) -> None:
    """Two instances that take 15 ms a request would carry 133 a second if they needed nothing else."""
    found = beside_of(REST, SERVING, ALONE, WAITED, capacity_rps).outside.between_ms
    assert found == pytest.approx(between_ms)


def test_what_passes_between_batches_counts_once_a_batch() -> None:
    full = [seen(at, 16.0, queue_ms=9.0, batch=4) for at in range(15) for _ in range(4)]
    rest = [ServiceTimes(instances=1, threads=1, batch=4, busy_ms=(16.0,))]
    outside = beside_of(rest, Serving(threads=1, max_batch=4), [], full, 200.0).outside
    assert outside.between_ms == pytest.approx(4.0)


def test_a_machine_that_became_slower_within_a_look_may_become_as_much_slower_or_faster_after_it() -> None:
    half = [seen(at / 10, 10.0, queue_ms=9.0) for at in range(30)]
    slower = [seen(3 + at / 10, 12.0, queue_ms=9.0) for at in range(30)]
    found = moved_between([*half, *slower])
    assert sorted(moved.times for moved in found) == pytest.approx([10 / 12, 12 / 10])
    assert [moved.half_s for moved in found] == pytest.approx([2.95, 2.95])


@given(st.floats(0.5, 2.0), st.floats(0.1, 3.0), st.floats(0.1, 100.0))
def test_what_follows_a_look_differs_from_it_by_less_than_its_halves_do(times: float, half_s: float, s: float) -> None:
    """Where the mean of a half varies by V, that of a look does by V / 2: halves differ by 2 V."""
    moved = Moved(times, half_s)
    assert abs(math.log(moved.over(s + 1))) <= abs(math.log(moved.over(s)))
    assert math.log(moved.over(half_s)) == pytest.approx(math.log(times) * math.sqrt((0.5 + 1) / 2))
    assert abs(math.log(moved.over(1e9))) == pytest.approx(abs(math.log(times)) / 2, abs=1e-6)


def test_a_look_at_hardly_anything_does_not_tell_how_much_the_machine_moves() -> None:
    assert moved_between([]) == []
    assert moved_between([seen(at, 10.0 + at, queue_ms=9.0) for at in range(20)]) == []
    assert moved_between([seen(at, 10.0 + at) for at in range(60)]) == []
