from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.serve.batcher import Batcher, Formed
from hasten.serve.policy import Policy
from hasten.serve.waiting import Waiting


def waiting(
    id_: int, rows: int = 1, arrived: float = 0.0, deadline: float = math.inf, *, trial: bool = False
) -> Waiting:
    return Waiting(id_, rows, "a", arrived, deadline, trial=trial)


def seconds(rows: int) -> float:
    """A batch costs 10 ms and 1 ms a row: company saves 10 ms."""
    return 0.010 + 0.001 * rows


def form(
    *line: Waiting,
    now: float = 0.0,
    max_batch: int = 4,
    max_delay_s: float = 0.0,
    cost: Callable[[int], float] = seconds,
    strict: bool = False,
    at_once: bool = False,
) -> Formed:
    batcher = Batcher(Policy(max_batch=max_batch, max_delay_s=max_delay_s))
    return batcher.form(line, now, cost, max_batch, strict=strict, at_once=at_once)


def ids(formed: Formed) -> list[int]:
    return [request.id for request in formed.batch]


def test_a_lone_request_goes_alone_where_no_delay_is_allowed() -> None:
    assert ids(form(waiting(1))) == [1]


def test_requests_go_together_in_their_order_up_to_the_bound() -> None:
    assert ids(form(*(waiting(i) for i in range(6)))) == [0, 1, 2, 3]


def test_a_request_that_does_not_fit_lets_a_smaller_one_join() -> None:
    assert ids(form(waiting(1, rows=2), waiting(2, rows=3), waiting(3, rows=2))) == [1, 3]


def test_a_request_larger_than_any_batch_goes_alone() -> None:
    assert ids(form(waiting(1, rows=9), waiting(2))) == [1]


def test_a_request_waits_for_company_until_the_window_is_over() -> None:
    lone = waiting(1, arrived=1.0)
    assert form(lone, now=1.4, max_delay_s=0.5) == Formed([], until=1.5)
    assert ids(form(lone, now=1.5, max_delay_s=0.5)) == [1]


def test_a_full_batch_does_not_wait() -> None:
    assert len(form(*(waiting(i) for i in range(4)), max_delay_s=10.0).batch) == 4


def test_at_once_means_at_once() -> None:
    assert ids(form(waiting(1), max_delay_s=10.0, at_once=True)) == [1]


def test_a_deadline_ends_the_window_while_there_is_time_to_run() -> None:
    assert form(waiting(1, deadline=0.1), max_delay_s=10.0) == Formed([], until=0.1 - seconds(1))


def test_a_batch_is_cut_to_what_meets_its_first_deadline() -> None:
    line = [waiting(1, deadline=0.0135), *(waiting(i) for i in range(2, 6))]
    assert ids(form(*line, strict=True)) == [1, 2, 3]


def test_a_deadline_that_no_batch_meets_is_given_up_only_where_predictions_are_trusted() -> None:
    hopeless = waiting(1, deadline=0.005)
    assert form(hopeless, waiting(2), strict=True) == Formed([], late=(hopeless,))
    assert ids(form(hopeless, waiting(2))) == [1, 2]


def test_a_request_that_would_hold_a_full_batch_back_is_given_up() -> None:
    tight = waiting(1, deadline=0.0115)
    assert form(tight, *(waiting(i) for i in range(2, 9)), max_batch=8, strict=True).late == (tight,)
    assert ids(form(tight, waiting(2), max_batch=8, strict=True)) == [1]


def test_a_request_on_trial_runs_although_it_is_predicted_to_be_late() -> None:
    assert ids(form(waiting(1, deadline=0.001, trial=True), strict=True)) == [1]


def test_company_of_other_lines_fills_the_batch_up_as_far_as_the_deadlines_of_all_allow() -> None:
    batcher = Batcher(Policy(max_batch=4))
    others = [waiting(i) for i in range(10, 20)]

    def filled(deadline: float, company: list[Waiting]) -> list[int]:
        return ids(batcher.form([waiting(1, deadline=deadline)], 0.0, seconds, 4, company=company, strict=True))

    assert filled(math.inf, others) == [1, 10, 11, 12]
    assert filled(0.0125, others) == [1, 10]
    assert filled(0.020, [waiting(30, deadline=0.001), *others]) == [1, 10, 11, 12]
    assert filled(0.020, [waiting(30, rows=9), waiting(31, rows=2), *others]) == [1, 31, 10]


def test_a_full_line_takes_no_company() -> None:
    batcher = Batcher(Policy(max_batch=2))
    assert ids(batcher.form([waiting(1), waiting(2)], 0.0, seconds, 2, company=[waiting(3)])) == [1, 2]


def adaptive(gap_s: float, *, arrivals: int = 50) -> tuple[Batcher, float]:
    """A batcher that saw arrivals in even gaps, and the time of the last one."""
    mode: Literal["adaptive"] = "adaptive"
    batcher = Batcher(Policy(max_batch=8, max_delay_s=0.1, company=mode))
    for number in range(arrivals):
        batcher.arrived("a", number * gap_s)
    return batcher, (arrivals - 1) * gap_s


def test_company_is_waited_for_where_it_comes_sooner_than_a_run_of_its_own_would_take() -> None:
    batcher, now = adaptive(gap_s=0.002)
    formed = batcher.form([waiting(1, arrived=now)], now, seconds, 8)
    assert formed.until is not None
    assert now + 0.002 <= formed.until <= now + 0.005


def test_company_that_comes_too_rarely_is_not_waited_for() -> None:
    batcher, now = adaptive(gap_s=0.02)
    assert ids(batcher.form([waiting(1, arrived=now)], now, seconds, 8)) == [1]


def test_company_is_not_waited_for_where_batches_save_nothing() -> None:
    batcher, now = adaptive(gap_s=0.002)
    assert ids(batcher.form([waiting(1, arrived=now)], now, lambda rows: 0.01 * rows, 8)) == [1]


def test_idle_engines_wait_for_nobody() -> None:
    batcher, now = adaptive(gap_s=0.002)
    assert ids(batcher.form([waiting(1, arrived=now)], now, seconds, 8, idle=True)) == [1]


def test_company_that_stays_away_is_given_up_before_the_window_ends() -> None:
    batcher, now = adaptive(gap_s=0.002)
    assert ids(batcher.form([waiting(1, arrived=now)], now + 0.006, seconds, 8)) == [1]


def test_shapes_that_strangers_invent_do_not_fill_the_memory() -> None:
    batcher, _ = adaptive(gap_s=0.001)
    for number in range(5000):
        batcher.arrived(("shape", number), 1.0)
    assert len(batcher._gaps) <= 256


@settings(deadline=None)
@given(
    rows=st.lists(st.integers(1, 6), min_size=1, max_size=30),
    slack=st.lists(st.none() | st.floats(0.0, 0.05), min_size=30, max_size=30),
    max_batch=st.integers(1, 6),
    strict=st.booleans(),
)
def test_a_batch_is_a_part_of_the_line_within_the_bound_and_on_time_where_that_is_asked(
    rows: list[int], slack: list[float | None], max_batch: int, strict: bool
) -> None:
    deadlines = [math.inf if s is None else s for s in slack]
    order = sorted(range(len(rows)), key=lambda i: deadlines[i])
    line = [waiting(i, rows[i], deadline=deadlines[i]) for i in order]
    formed = form(*line, max_batch=max_batch, strict=strict)
    assert bool(formed.batch) != bool(formed.late)
    assert [r.id for r in line if r in formed.batch] == ids(formed)
    total = sum(request.rows for request in formed.batch)
    assert total <= max_batch or len(formed.batch) == 1
    if strict:
        assert all(seconds(total) <= request.deadline for request in formed.batch)
