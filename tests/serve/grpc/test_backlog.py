from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hasten.serve.grpc.backlog import Backlog

SIZES = st.integers(0, 100)


def test_requests_are_taken_while_their_answers_would_fit() -> None:
    backlog = Backlog(1000, 2000, 0.0)
    assert backlog.has_room(waiting=0, ahead=63)
    backlog.put(300, waiting=0)
    assert [backlog.has_room(waiting=300, ahead=ahead) for ahead in (1, 2, 3)] == [True, True, False]


def test_one_answer_of_any_size_is_sent_and_the_one_behind_too_many_is_not() -> None:
    backlog = Backlog(1000, 2000, 0.0)
    assert backlog.put(10**9, waiting=0)
    assert not backlog.put(1, waiting=10**9)


def test_who_leaves_nothing_is_never_late_however_long_it_rests() -> None:
    backlog = Backlog(1000, 2000, 0.0)
    assert not any(backlog.is_late(0, now, 30.0) for now in (1.0, 1000.0, 2000.0))
    backlog.put(5, 0)
    assert not backlog.is_late(5, 2001.0, 30.0)
    assert backlog.is_late(5, 2032.0, 30.0)


@given(st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=60), st.integers(1, 10))
def test_a_stream_is_late_if_an_answer_waits_too_long_and_never_sooner(turns: list[tuple[int, int]], most: int) -> None:
    """One look a second. Late is noticed a second after the bound at the earliest, and within twice the bound."""
    backlog = Backlog(10, 10, 0.0)
    sent = read = 0
    due: list[tuple[int, int]] = []  # what has to be read until its answer is, and when it was sent
    for now, (put, take) in enumerate(turns):
        if put:
            backlog.put(put, sent - read)
            sent += put
            due.append((sent, now))
        read = min(sent, read + take)
        due = [one for one in due if one[0] > read]
        oldest = now - due[0][1] if due else 0
        late = backlog.is_late(sent - read, float(now), float(most))
        assert not late or oldest > most
        if late:
            # Then it is ended.
            return
        assert oldest <= 2 * most + 1
