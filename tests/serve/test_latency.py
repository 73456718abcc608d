from __future__ import annotations

import pytest

from hasten.serve.latency import GUESS_S, LatencyTable
from hasten.serve.policy import Rung
from hasten.spec.serving import ServiceTimes, Serving

LADDER = (Rung(variant="f32"), Rung(variant="int8", speed=2.0))


def table() -> LatencyTable:
    return LatencyTable({"f32": [(1, 0.010), (4, 0.016)]}, LADDER)


def test_sizes_between_measured_ones_are_interpolated_and_larger_ones_grow_in_proportion() -> None:
    found = [table().seconds("f32", rows, None) for rows in (1, 2, 4, 8)]
    assert found == pytest.approx([0.010, 0.012, 0.016, 0.032])


def test_a_variant_that_was_not_measured_starts_from_the_first_and_its_speed() -> None:
    assert table().seconds("int8", 4, None) == pytest.approx(0.008)


def test_what_is_seen_corrects_what_was_measured_elsewhere() -> None:
    slow = table()
    for _ in range(100):
        slow.learn("f32", 4, None, 0.032)
    assert slow.seconds("f32", 4, None) == pytest.approx(0.032, rel=0.01)
    assert slow.seconds("f32", 1, None) == pytest.approx(0.020, rel=0.01)


def test_one_shape_does_not_spoil_the_times_of_another() -> None:
    mixed = table()
    for _ in range(100):
        mixed.learn("f32", 4, "long", 0.064)
        mixed.learn("f32", 4, "short", 0.016)
    assert mixed.seconds("f32", 4, "long") == pytest.approx(0.064, rel=0.01)
    assert mixed.seconds("f32", 4, "short") == pytest.approx(0.016, rel=0.01)


def test_one_slow_run_moves_the_mean_a_little_and_the_bound_more() -> None:
    found = table()
    mean, bound = found.seconds("f32", 1, None), found.bound("f32", 1, None)
    found.learn("f32", 1, None, 0.020)
    assert found.seconds("f32", 1, None) == pytest.approx(1.1 * mean)
    assert found.bound("f32", 1, None) > 1.2 * bound


def test_steady_runs_bring_the_bound_close_to_the_mean() -> None:
    found = LatencyTable()
    for _ in range(100):
        found.learn("", 1, None, 0.005)
    assert found.bound("", 1, None) == pytest.approx(0.005, rel=0.01)


def test_before_anything_is_known_a_guess_is_made_and_called_one() -> None:
    found = LatencyTable()
    assert found.seconds("", 3, None) == 3 * GUESS_S
    assert not found.knows("")
    found.learn("", 2, None, 0.004)
    assert found.knows("")
    assert found.seconds("", 4, None) == pytest.approx(0.008)


def test_the_table_is_seeded_by_the_layout_that_is_served() -> None:
    times = [
        ServiceTimes(instances=1, threads=2, batch=1, busy_ms=(9.0, 10.0, 30.0)),
        ServiceTimes(instances=2, threads=1, batch=1, busy_ms=(16.0,)),
    ]
    found = LatencyTable.of_times({"f32": times}, Serving(instances=1, threads=2), LADDER)
    assert found.seconds("f32", 1, None) == pytest.approx(0.010)
    assert found.bound("f32", 1, None) > 0.02


def test_shapes_that_strangers_invent_do_not_fill_the_memory() -> None:
    found = table()
    for number in range(3000):
        found.learn("f32", number, ("shape", number), 0.01)
    assert len(found._cells) <= 512


def test_what_an_engine_ran_before_there_were_requests_stands_in_for_a_measurement() -> None:
    found = LatencyTable()
    found.warm("", 1, None, (0.5, 0.011, 0.010))
    found.warm("", 4, None, (0.9, 0.016))
    assert found.knows("")
    assert found.seconds("", 2, None) == pytest.approx(0.012)


def test_where_something_was_measured_that_stays() -> None:
    found = table()
    found.warm("f32", 1, None, (0.1, 0.1))
    assert found.seconds("f32", 1, None) == pytest.approx(0.010)


def test_a_size_that_has_run_since_is_not_learned_anew_from_an_engine_that_starts_again() -> None:
    found = LatencyTable()
    found.learn("", 1, None, 0.010)
    found.warm("", 1, None, (0.030, 0.030))
    assert found.seconds("", 1, None) == pytest.approx(0.010)


def test_a_full_batch_is_the_size_that_was_fastest_a_row_before_there_were_requests() -> None:
    found = LatencyTable()
    found.bind(8, compare=True)
    for rows, seconds in ((1, 0.02), (2, 0.05), (4, 0.1), (8, 0.2)):
        found.warm("", rows, "wide", (seconds,) * 3)
    assert found.of("wide")[""].full == 1
    # Of another shape that is supposed, and looked at again in its time.
    assert found.of("narrow")[""].full == 1
