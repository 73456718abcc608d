"""Refusals of a shared core come together, and no engine waits for them."""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from hasten.serve.lull import FREE_MS, LONGEST_MS, MANY, Lull

Sleeps = list[tuple[list[int], float]]


def lull(
    descriptors: Sequence[int],
    *,
    pending: Callable[[], bool] = lambda: False,
    worked: Callable[[], float] = lambda: 0.0,
    longest_ms: int = LONGEST_MS,
) -> Lull:
    return Lull(lambda: descriptors, pending, worked, longest_ms)


@pytest.fixture
def engine() -> Iterator[tuple[int, int]]:
    """A descriptor to listen on, and one to speak on."""
    ours, theirs = os.pipe()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> Sleeps:
    """What was slept for, and how long at most."""
    found: Sleeps = []

    class Poll:
        def __init__(self) -> None:
            self.descriptors: list[int] = []

        def register(self, descriptor: int, events: int) -> None:
            assert events == select.POLLIN
            self.descriptors.append(descriptor)

        def poll(self, most_ms: float) -> None:
            found.append((self.descriptors, most_ms))

    monkeypatch.setattr(select, "poll", Poll)
    return found


def test_what_was_done_in_a_turn_is_written_before_the_server_sleeps(sleeps: Sleeps) -> None:
    async def run() -> None:
        lull([7]).plan(1)
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: sleeps.append(([], 0.0)))
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(run())
    assert sleeps == [([], 0.0), ([7], LONGEST_MS)]


def test_it_sleeps_once_for_all_refusals_of_a_turn_and_again_for_later_ones(sleeps: Sleeps) -> None:
    shared = lull([7, 9])

    async def run() -> None:
        for _ in range(2):
            shared.plan(1)
            shared.plan(1)
            for _ in range(3):
                await asyncio.sleep(0)

    asyncio.run(run())
    assert sleeps == [([7, 9], LONGEST_MS)] * 2


def test_a_burst_has_gathered_already(sleeps: Sleeps) -> None:
    async def run() -> None:
        for refused in (MANY, MANY - 1):
            lull([7]).plan(refused)
            for _ in range(3):
                await asyncio.sleep(0)
            sleeps.append(([], refused))

    asyncio.run(run())
    assert sleeps == [([], MANY), ([7], LONGEST_MS), ([], MANY - 1)]


def test_refusals_one_by_one_are_a_burst_where_they_are_many_in_a_turn(sleeps: Sleeps) -> None:
    async def run() -> None:
        for refused in (MANY, MANY - 1):
            shared = lull([7])
            for _ in range(refused):
                shared.plan(1)
            for _ in range(3):
                await asyncio.sleep(0)
            sleeps.append(([], refused))

    asyncio.run(run())
    assert sleeps == [([], MANY), ([7], LONGEST_MS), ([], MANY - 1)]


def test_what_is_read_right_after_a_sleep_may_have_come_when_it_began(engine: tuple[int, int]) -> None:
    shared, found = lull([engine[0]]), []

    async def run() -> None:
        before = time.monotonic()
        os.write(engine[1], b"x")
        shared.plan(1)
        for _ in range(4):
            await asyncio.sleep(0)
            found.append(shared.since)
        assert [before <= since <= time.monotonic() for since in found if since] == [True]

    asyncio.run(run())
    assert found[0] == found[-1] == 0.0


def test_it_does_not_sleep_on_what_is_not_decided_and_sleeps_after_the_next_refusal(sleeps: Sleeps) -> None:
    undecided = [True, False]
    shared = lull([7], pending=lambda: undecided.pop(0))

    async def run() -> None:
        for _ in range(2):
            shared.plan(1)
            for _ in range(3):
                await asyncio.sleep(0)
            sleeps.append(([], 0.0))

    asyncio.run(run())
    assert sleeps == [([], 0.0), ([7], LONGEST_MS), ([], 0.0)]


def test_who_is_refused_later_is_told_before_it_sleeps(sleeps: Sleeps) -> None:
    shared = lull([7])

    async def run() -> None:
        shared.plan(1)
        await asyncio.sleep(0)
        shared.plan(1)
        for _ in range(2):
            sleeps.append(([], 0.0))
            await asyncio.sleep(0)

    asyncio.run(run())
    assert sleeps == [([], 0.0), ([], 0.0), ([7], LONGEST_MS)]


def slept_ms(sleeps: Sleeps, work_ms: Sequence[float]) -> list[float]:
    """How long it sleeps at most where so much work lies before each sleep."""
    clock, readings = 0.0, [0.0]
    for ms in work_ms:
        clock += ms / 1e3
        readings += [clock, clock]
    shared = lull([7], worked=iter(readings).__next__)

    async def run() -> None:
        for _ in work_ms:
            shared.plan(1)
            for _ in range(3):
                await asyncio.sleep(0)

    asyncio.run(run())
    return [ms for _, ms in sleeps]


def test_where_bursts_make_work_it_sleeps_for_less_but_never_not_at_all(sleeps: Sleeps) -> None:
    assert slept_ms(sleeps, [FREE_MS - 0.1, FREE_MS + 0.1, FREE_MS + 1.1, 50.0]) == [LONGEST_MS, 2, 1, 1]


def test_a_burst_is_remembered_for_a_while(sleeps: Sleeps) -> None:
    found = slept_ms(sleeps, [FREE_MS + 1.5, *[0.0] * 120])
    assert found[:2] == [1, 1]
    assert found == sorted(found)
    assert found[-1] == LONGEST_MS


def test_the_work_of_an_hour_without_refusals_is_soon_forgotten(sleeps: Sleeps) -> None:
    found = slept_ms(sleeps, [3_600_000.0, *[0.0] * 130])
    assert found[0] == 1
    assert found[-1] == LONGEST_MS


def test_without_engines_there_is_nobody_to_sleep_for(sleeps: Sleeps) -> None:
    async def run() -> None:
        lull([]).plan(1)
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(run())
    assert sleeps == []


def test_an_engine_that_answers_ends_it(engine: tuple[int, int]) -> None:
    ours, theirs = engine
    os.write(theirs, b"!")

    async def run() -> None:
        # Longer than any test may take.
        lull([ours], longest_ms=3_600_000).plan(1)
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(run())
