"""What lives is left alone by the garbage collector; garbage is not."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from hasten import heap


class Cycle:
    """Refers to itself, so that only the collector frees it."""

    def __init__(self) -> None:
        self.own = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_lives_is_walked_over_no_more_and_what_is_new_is() -> None:
    kept = Cycle()
    heap.settle()
    new = Cycle()
    watched = {id(thing) for thing in gc.get_objects()}
    assert id(kept) not in watched
    assert id(new) in watched


def test_what_is_garbage_is_freed_first() -> None:
    gone = weakref.ref(Cycle())
    heap.settle()
    assert gone() is None


def test_what_became_garbage_since_is_freed_when_settled_again() -> None:
    kept = Cycle()
    heap.settle()
    gone = weakref.ref(kept)
    del kept
    gc.collect()
    assert gone() is not None
    heap.settle()
    assert gone() is None


def test_after_a_block_everything_is_the_collectors_again_even_where_it_failed() -> None:
    kept, frozen = Cycle(), list[int]()

    def failing() -> None:
        with heap.settled():
            frozen.append(gc.get_freeze_count())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert frozen[0] > 0
    assert gc.get_freeze_count() == 0
    assert any(thing is kept for thing in gc.get_objects())
