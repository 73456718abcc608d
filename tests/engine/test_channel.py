"""Two ends of a channel in one process: what lies in shared memory stays there while somebody looks at it."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.engine.area import Area
from hasten.engine.channel import Channel, Closed
from hasten.engine.frames import Frame
from hasten.errors import EngineCrashed

AREAS = 3


class Pair:
    """An owner and its worker, which gives back what it gets."""

    def __init__(self) -> None:
        self.end, other = socket.socketpair()
        self.areas = [Area.create() for _ in range(1 + AREAS)]
        inputs, *outputs = self.areas
        theirs = [Area(os.dup(area.fd)) for area in self.areas]
        self.owner = Channel(self.end, [inputs], outputs)
        self.worker = Channel(other, theirs[1:], theirs[:1])
        self.areas += theirs

    def ask(self, value: int) -> Frame:
        self.owner.send(Frame("run", tensors={"x": np.full(10_000, value)}).layout())
        asked = self.worker.wait(1)
        assert not asked.lasts
        self.worker.send(Frame("ran", tensors=asked.tensors).layout())
        return self.owner.wait(1)

    def close(self) -> None:
        self.owner.close()
        self.worker.close()
        for area in self.areas:
            area.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def test_an_answer_that_is_still_looked_at_is_not_written_over(pair: Pair) -> None:
    first = pair.ask(1).tensors["x"][10:20]
    second = pair.ask(2).tensors["x"]
    assert (first == 1).all()
    assert (second == 2).all()


def test_where_every_other_area_is_looked_at_answers_do_not_last(pair: Pair) -> None:
    held = [pair.ask(number) for number in range(AREAS - 1)]
    assert [frame.lasts for frame in held] == [True] * (AREAS - 1)
    assert not pair.ask(8).lasts
    assert not pair.ask(9).lasts
    assert [frame.tensors["x"][0] for frame in held] == [0, 1]


def test_an_area_is_used_again_once_nobody_looks_at_it(pair: Pair) -> None:
    assert all(pair.ask(number).lasts for number in range(3 * AREAS))


def test_what_is_small_is_not_worth_an_area(pair: Pair) -> None:
    pair.owner.send(Frame("run", tensors={"x": np.zeros(1000)}).layout())
    pair.worker.send(Frame("ran", tensors=pair.worker.wait(1).tensors).layout())
    assert not pair.owner.wait(1).lasts


def test_memory_outlives_the_channel_for_whoever_looks_at_it(pair: Pair) -> None:
    seen = memoryview(pair.ask(7).tensors["x"])
    pair.close()
    assert seen[9_999] == 7


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 5)), max_size=20))
def test_whatever_is_held_for_however_long_keeps_its_value(turns: list[tuple[int, int]]) -> None:
    pair = Pair()
    held: list[tuple[int, np.ndarray]] = []
    for value, keep in turns:
        frame = pair.ask(value)
        assert (frame.tensors["x"] == value).all()
        if frame.lasts:
            held.append((value, frame.tensors["x"][keep:]))
        del frame
        held = held[-keep:] if keep else []
        assert all((array == number).all() for number, array in held)
    pair.close()


def test_a_word_that_names_no_area_is_a_crash(pair: Pair) -> None:
    for word in ((1, AREAS, 0), (1, 0, 1)):
        pair.worker._socket.send(struct.pack("<QII", *word))
        with pytest.raises(EngineCrashed, match="cannot be read"):
            pair.owner.receive()


def test_the_end_of_the_other_side_is_noticed(pair: Pair) -> None:
    pair.worker.close()
    with pytest.raises(Closed):
        pair.owner.wait(1)
