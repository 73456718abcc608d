from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.serve.sizes import Sizes, compared


def cached(rows: int) -> float:
    """Seconds of an engine that is fastest alone: more rows do not fit its cache."""
    return 0.020 if rows == 1 else 0.026 * rows


def shared(rows: int) -> float:
    """Seconds of an engine that shares most of its work among rows."""
    return 0.010 + 0.002 * rows


def loaded(sizes: Sizes, seconds: Callable[[int], float], batches: int, waiting: int = 100) -> list[int]:
    """Run batches from a long queue; returns their sizes."""
    ran: list[int] = []
    for _ in range(batches):
        ran.append(min(sizes.next(waiting), waiting))
        sizes.learn(ran[-1], seconds(ran[-1]))
    return ran


@pytest.mark.parametrize(("most", "sizes"), [(1, [1]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])])
def test_powers_of_two_and_the_most_allowed_are_compared(most: int, sizes: list[int]) -> None:
    assert compared(most) == sizes


def test_before_anything_is_known_as_many_rows_as_allowed_go_together() -> None:
    assert Sizes(8, {}).best == 8


def test_under_load_each_size_is_tried_and_the_fastest_a_row_stays() -> None:
    sizes = Sizes(8, {})
    ran = loaded(sizes, cached, 100)
    assert sizes.best == 1
    assert ran[0] == 8
    assert sorted(ran[1:13]) == sorted([1, 2, 4, 8] * 3)
    assert set(ran[13:]) == {1}


def test_a_full_batch_stays_where_it_is_the_fastest_a_row() -> None:
    sizes = Sizes(8, {})
    assert set(loaded(sizes, shared, 100)[13:]) == {8}


def test_of_equal_sizes_the_largest_is_taken() -> None:
    assert Sizes(8, {1: 0.010, 2: 0.0201, 4: 0.0402, 8: 0.081}).best == 8


def test_what_was_measured_beforehand_is_not_tried() -> None:
    sizes = Sizes(8, {rows: cached(rows) for rows in (1, 2, 4, 8)})
    assert set(loaded(sizes, cached, 50)) == {1}


def test_what_ran_before_there_were_requests_is_not_tried_again() -> None:
    sizes = Sizes(8, {})
    for rows in (1, 2, 4, 8):
        sizes.warm(rows, [3 * cached(rows), cached(rows), cached(rows)])
    assert set(loaded(sizes, cached, 50)) == {1}


def test_a_size_that_ran_only_twice_before_is_tried_once_more() -> None:
    sizes = Sizes(8, {})
    for rows in (1, 2, 4, 8):
        sizes.warm(rows, [shared(rows)] * 2)
    assert sorted(loaded(sizes, shared, 8)) == [1, 2, 4, 8, 8, 8, 8, 8]


def test_until_there_was_a_full_batch_what_is_there_goes_together() -> None:
    assert Sizes(8, {}).next(waiting=0) == 8
    sizes = Sizes(8, {})
    assert set(loaded(sizes, shared, 20, waiting=2)) == {2}
    assert sizes.best == 8


def test_only_what_waits_can_be_tried() -> None:
    sizes = Sizes(8, {})
    sizes.learn(8, shared(8))
    assert set(loaded(sizes, shared, 20, waiting=2)) == {1, 2}


def test_a_size_that_never_comes_about_is_not_asked_for_for_ever() -> None:
    """Where each request has three rows, none makes a batch of one or two."""
    sizes = Sizes(8, {})
    sizes.learn(8, shared(8))
    asked = [sizes.next(waiting=100) for _ in range(50)]
    assert [asked.count(rows) for rows in (1, 2, 4)] == [3, 3, 3]


def test_one_bad_second_does_not_decide_for_ever() -> None:
    sizes = Sizes(8, {})
    loaded(sizes, shared, 50)
    loaded(sizes, lambda rows: shared(rows) * (5 if rows == 8 else 1), 30)
    assert sizes.best != 8
    loaded(sizes, shared, 5000)
    assert sizes.best == 8


def test_a_single_slow_run_changes_nothing() -> None:
    sizes = Sizes(8, {})
    loaded(sizes, cached, 50)
    sizes.learn(1, 2.0)
    assert sizes.best == 1


@settings(deadline=None, max_examples=50)
@given(times=st.lists(st.floats(0.001, 0.1), min_size=4, max_size=4), noise=st.lists(st.floats(0.95, 1.1), min_size=5))
def test_trying_costs_less_than_three_percent_whatever_the_times(times: list[float], noise: list[float]) -> None:
    """Against a queue that is always long, once everything was tried; noise aside."""
    cost = dict(zip((1, 2, 4, 8), times, strict=True))
    best = max(rows / seconds for rows, seconds in cost.items())
    sizes, drawn = Sizes(8, {}), iter(noise * 1000)
    loaded(sizes, cost.__getitem__, 13)
    # Until every size was tried again, and then long enough for the average.
    rows = seconds = 0.0
    while seconds < 60.0:
        size = sizes.next(100)
        sizes.learn(size, cost[size] * next(drawn, 1.0))
        rows, seconds = rows + size, seconds + cost[size]
    assert rows / seconds >= 0.8 * best
