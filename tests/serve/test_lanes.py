from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.serve.lanes import Lanes
from hasten.serve.policy import Lane
from hasten.serve.waiting import Waiting

CRITICAL, BACKGROUND = 0, 1
BATCH_S = 0.01


def waiting(
    id_: int, lane: int = 0, *, arrived: float = 0.0, deadline: float = math.inf, key: str = "a", rows: int = 1
) -> Waiting:
    return Waiting(id_, rows, key, arrived, deadline, limit=deadline, lane=lane, work=0.001 * rows)


def lanes(*requests: Waiting, share: float = 0.0, max_age_s: float | None = None) -> Lanes:
    made = Lanes([
        Lane(name="critical", priority=1),
        Lane(name="background", priority=2, min_share=share, max_age_s=max_age_s),
    ])  # fmt: skip
    for request in requests:
        made.add(request)
    return made


def served(queue: Lanes, now: float = 0.0) -> Waiting:
    """Send the next request as a batch of its own."""
    head = queue.pick(now, lambda _: BATCH_S)
    queue.charge(head.lane, {head.lane: BATCH_S})
    queue.remove(head.id)
    return head


def test_the_earliest_deadline_goes_first_inside_a_lane() -> None:
    queue = lanes(waiting(1), waiting(2, deadline=9.0), waiting(3, deadline=5.0))
    assert [served(queue).id for _ in range(3)] == [3, 2, 1]


def test_without_deadlines_requests_go_in_the_order_they_came() -> None:
    queue = lanes(*(waiting(i, arrived=float(i)) for i in range(5)))
    assert [served(queue).id for _ in range(5)] == [0, 1, 2, 3, 4]


def test_a_request_without_a_deadline_is_not_overtaken_for_ever() -> None:
    queue = lanes(waiting(1, arrived=0.0), waiting(2, arrived=60.0, deadline=61.0))
    assert served(queue).id == 1


def test_critical_work_goes_before_background_work_that_came_earlier() -> None:
    queue = lanes(waiting(1, BACKGROUND), waiting(2, CRITICAL))
    assert [served(queue).id, served(queue).id] == [2, 1]


def test_a_line_holds_one_lane_and_one_shape_in_order() -> None:
    head = waiting(1)
    queue = lanes(head, waiting(2, key="b"), waiting(3), waiting(4, BACKGROUND))
    assert [request.id for request in queue.line(head)] == [1, 3]


def test_company_is_of_the_same_shape_from_the_lanes_allowed_the_most_urgent_first() -> None:
    queue = Lanes([Lane(name="c", priority=3), Lane(name="b", priority=2), Lane(name="a", priority=1)])
    for request in (waiting(1, 0), waiting(2, 1), waiting(3, 1, key="b"), waiting(4, 2), head := waiting(5, 2)):
        queue.add(request)
    assert [request.id for request in queue.company(head, [0, 1, 2])] == [2, 1]
    assert list(queue.company(head, [0, 2])) == []
    queue.remove(2), queue.remove(3)
    assert [request.id for request in queue.company(head, [0, 2])] == [1]


def test_the_one_that_could_wait_best_is_the_last_of_the_least_urgent_lane_below() -> None:
    queue = lanes(waiting(1), waiting(2, BACKGROUND), waiting(3, BACKGROUND))
    last = queue.last_below(CRITICAL)
    assert last is not None and last.id == 3
    assert queue.last_below(BACKGROUND) is None


def test_a_saturated_background_lane_gets_its_share_and_no_more() -> None:
    queue = lanes(*(waiting(i, CRITICAL) for i in range(1000)), *(waiting(i, BACKGROUND) for i in range(1000, 2000)),
                  share=0.1)  # fmt: skip
    got = [served(queue).lane for _ in range(1000)]
    assert sum(got) == pytest.approx(100, abs=2)


def test_a_share_is_not_saved_up_while_nothing_waits() -> None:
    queue = lanes(*(waiting(i, CRITICAL) for i in range(500)), share=0.1)
    for _ in range(400):
        served(queue)
    for id_ in range(1000, 1050):
        queue.add(waiting(id_, BACKGROUND))
    assert sum(served(queue).lane for _ in range(50)) <= 6


def test_single_background_requests_get_their_share_and_no_more() -> None:
    """One that comes whenever the last was served must not pass as a lane that is always new."""
    queue = lanes(*(waiting(i, CRITICAL) for i in range(1000)), share=0.1)
    got = 0
    for id_ in range(500):
        if not queue.length(BACKGROUND):
            queue.add(waiting(2000 + id_, BACKGROUND))
        got += served(queue).lane
    assert got == pytest.approx(50, abs=2)


def test_background_work_takes_all_that_is_left() -> None:
    queue = lanes(*(waiting(i, BACKGROUND) for i in range(10)), share=0.1)
    assert [served(queue).lane for _ in range(10)] == [BACKGROUND] * 10


def test_lanes_of_one_priority_share_by_weight() -> None:
    queue = Lanes([Lane(name="a", weight=3.0), Lane(name="b", weight=1.0)])
    for id_ in range(400):
        queue.add(waiting(id_, id_ % 2))
    got = [served(queue).lane for _ in range(200)]
    assert sum(got) == pytest.approx(50, abs=2)


def test_a_lane_that_rested_does_not_catch_up_at_the_cost_of_its_peers() -> None:
    queue = Lanes([Lane(name="a"), Lane(name="b")])
    for id_ in range(200):
        queue.add(waiting(id_, 0))
    for _ in range(100):
        served(queue)
    for id_ in range(200, 300):
        queue.add(waiting(id_, 1))
    assert sum(served(queue).lane for _ in range(40)) == pytest.approx(20, abs=1)


def test_old_background_work_goes_first_where_that_makes_nobody_late() -> None:
    old = waiting(1, BACKGROUND, arrived=0.0)
    patient = waiting(2, CRITICAL, arrived=8.0, deadline=9.0)
    assert lanes(old, patient, max_age_s=10.0).pick(8.0, lambda _: BATCH_S) is old
    hurried = waiting(2, CRITICAL, arrived=8.0, deadline=8.015)
    assert lanes(old, hurried, max_age_s=10.0).pick(8.0, lambda _: BATCH_S) is hurried
    assert lanes(old, patient, max_age_s=100.0).pick(8.0, lambda _: BATCH_S) is patient


def test_a_limit_counts_as_passed_at_its_very_moment() -> None:
    queue = lanes(waiting(1, deadline=2.0), waiting(2, BACKGROUND, deadline=1.0), waiting(3))
    assert queue.limits[0][0] == 1.0
    assert queue.expired(0.9) == []
    assert [request.id for request in queue.expired(1.0)] == [2]
    assert [request.id for request in queue.expired(5.0)] == [2, 1]


def test_a_removed_request_is_gone_and_frees_its_rows_and_work() -> None:
    queue = lanes(waiting(1, rows=3), waiting(2))
    assert queue.remove(1) is not None
    assert queue.remove(1) is None
    assert (len(queue), queue.rows) == (1, 1)
    assert queue.work(CRITICAL) == pytest.approx(0.001)
    queue.remove(2)
    assert queue.work(CRITICAL) == 0.0


def test_work_before_a_request_is_what_is_due_earlier_in_its_lane() -> None:
    queue = lanes(waiting(1, deadline=1.0), waiting(2, deadline=2.0), waiting(3, deadline=3.0), waiting(4, BACKGROUND))
    assert queue.work_before(waiting(9, deadline=2.5)) == pytest.approx(0.002)
    assert queue.work_before(waiting(9, deadline=0.5)) == 0.0


@settings(deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "add", "serve", "remove"]), st.integers(0, 1), st.sampled_from("ab"),
                  st.sampled_from([0.5, 1.0, 2.0, math.inf])),
        max_size=80,
    ),
    share=st.sampled_from([0.0, 0.2]),
)  # fmt: skip
def test_the_queue_agrees_with_a_plain_list(steps: list[tuple[str, int, str, float]], share: float) -> None:
    queue, plain = lanes(share=share), list[Waiting]()
    for number, (step, lane, key, deadline) in enumerate(steps):
        if step == "add":
            plain.append(waiting(number, lane, key=key, deadline=deadline, arrived=float(number)))
            queue.add(plain[-1])
        elif step == "remove" and plain:
            plain.remove(gone := plain[number % len(plain)])
            assert queue.remove(gone.id) is gone
        elif step == "serve" and plain:
            head = served(queue)
            of_lane = sorted((r for r in plain if r.lane == head.lane), key=lambda r: (r.due, r.id))
            assert head is of_lane[0]
            plain.remove(head)
        assert sorted(r.id for r in queue.all()) == [r.id for r in plain]
        assert [limit for limit, *_ in queue.limits[:1]] == sorted(r.limit for r in plain if r.limit < math.inf)[:1]
        for n in (0, 1):
            assert queue.length(n) == sum(r.lane == n for r in plain)
            assert queue.shapes(n) == len({r.key for r in plain if r.lane == n})
            assert queue.rows_of("b") == sum(r.rows for r in plain if r.key == "b")
            assert queue.line_rows(n, "a") == sum(r.rows for r in plain if r.lane == n and r.key == "a")
