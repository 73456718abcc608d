from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.serve.batcher import Batcher, Waiting


def waiting(id_: int, rows: int = 1, key: str = "a", arrived: float = 0.0, deadline: float | None = None) -> Waiting:
    return Waiting(id=id_, rows=rows, key=key, arrived=arrived, deadline=deadline)


def batcher(*requests: Waiting, max_batch: int = 4, max_delay_s: float = 0.0) -> Batcher:
    made = Batcher(max_batch, max_delay_s)
    for request in requests:
        made.add(request)
    return made


def ids(batch: list[Waiting]) -> list[int]:
    return [request.id for request in batch]


def test_an_empty_queue_gives_nothing() -> None:
    empty = batcher()
    assert empty.take(now=0.0, at_once=True) == []
    assert empty.ready_at() is None
    assert empty.next_deadline() is None


def test_a_lone_request_goes_alone_where_no_delay_is_allowed() -> None:
    assert ids(batcher(waiting(1)).take(now=0.0)) == [1]


def test_requests_leave_in_the_order_they_came() -> None:
    queue = batcher(*(waiting(i) for i in range(6)))
    assert [ids(queue.take(now=0.0)), ids(queue.take(now=0.0))] == [[0, 1, 2, 3], [4, 5]]


def test_the_oldest_request_sets_the_shape_and_others_keep_their_place() -> None:
    queue = batcher(waiting(1, key="a"), waiting(2, key="b"), waiting(3, key="a"))
    assert [ids(queue.take(now=0.0)), ids(queue.take(now=0.0))] == [[1, 3], [2]]


def test_a_request_that_does_not_fit_lets_a_smaller_one_join() -> None:
    queue = batcher(waiting(1, rows=2), waiting(2, rows=3), waiting(3, rows=2))
    assert [ids(queue.take(now=0.0)), ids(queue.take(now=0.0))] == [[1, 3], [2]]


def test_a_request_larger_than_any_batch_goes_alone() -> None:
    queue = batcher(waiting(1, rows=9), waiting(2))
    assert ids(queue.take(now=0.0)) == [1]


def test_a_request_waits_for_company_until_the_delay_is_over() -> None:
    queue = batcher(waiting(1, arrived=1.0), max_delay_s=0.5)
    assert queue.ready_at() == 1.5
    assert queue.take(now=1.4) == []
    assert ids(queue.take(now=1.5)) == [1]


def test_a_full_batch_does_not_wait() -> None:
    queue = batcher(*(waiting(i) for i in range(4)), max_delay_s=10.0)
    assert len(queue.take(now=0.0)) == 4


def test_at_once_means_at_once() -> None:
    assert ids(batcher(waiting(1), max_delay_s=10.0).take(now=0.0, at_once=True)) == [1]


def test_a_removed_request_is_gone_and_frees_its_rows() -> None:
    queue = batcher(waiting(1, rows=3), waiting(2))
    assert queue.remove(1)
    assert not queue.remove(1)
    assert (len(queue), queue.rows) == (1, 1)


def test_a_deadline_counts_as_passed_at_its_very_moment() -> None:
    queue = batcher(waiting(1, deadline=2.0), waiting(2, deadline=1.0), waiting(3))
    assert queue.next_deadline() == 1.0
    assert queue.expired(0.9) == []
    assert queue.expired(1.0) == [2]
    assert queue.expired(5.0) == [1, 2]


@settings(deadline=None)
@given(
    requests=st.lists(st.tuples(st.integers(1, 6), st.sampled_from("abc")), max_size=30),
    max_batch=st.integers(1, 6),
)
def test_whatever_waits_leaves_once_in_batches_of_one_shape_and_bounded_size(
    requests: list[tuple[int, str]], max_batch: int
) -> None:
    queue = batcher(*(waiting(i, rows, key) for i, (rows, key) in enumerate(requests)), max_batch=max_batch)
    assert queue.rows == sum(rows for rows, _ in requests)
    left: list[int] = []
    while len(queue):
        batch = queue.take(now=0.0)
        assert len({request.key for request in batch}) == 1
        assert len(batch) == 1 or sum(request.rows for request in batch) <= max_batch
        assert batch[0].id == min(set(range(len(requests))) - set(left))
        left += ids(batch)
    assert sorted(left) == list(range(len(requests)))
    assert queue.rows == 0
