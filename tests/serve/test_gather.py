"""Arrivals of a lone core gather while more come, and no longer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hasten.serve.gather import Gather


def decided_after(arriving: Sequence[int], *, enough: int = 100, turns: int = 4) -> list[int]:
    """How many had come at each decision, where so many arrive in each turn of the loop from the first on."""
    found: list[int] = []
    come = [0]

    async def run() -> None:
        gather = Gather(lambda: found.append(come[0]), lambda: come[0], enough=enough, turns=turns)
        for more in arriving:
            come[0] += more
            if more:
                gather.plan()
            await asyncio.sleep(0)

    asyncio.run(run())
    return found


def test_without_turns_to_wait_each_turn_decides_for_itself() -> None:
    assert decided_after([2, 3, 0, 0], turns=0) == [2, 5]


def test_a_decision_waits_until_a_turn_brings_nothing_new() -> None:
    assert decided_after([2, 3, 1, 0, 0, 0]) == [6]


def test_a_lone_arrival_waits_for_one_look_at_what_else_is_ready() -> None:
    assert decided_after([1, 0, 0, 0]) == [1]


def test_who_goes_on_coming_is_waited_for_so_many_turns_at_most() -> None:
    assert decided_after([1] * 9, turns=3)[0] == 4


def test_nobody_waits_once_a_batch_is_full() -> None:
    assert decided_after([3, 5, 1, 1, 0], enough=8)[0] == 8


def test_what_ends_in_a_later_turn_is_followed_by_one_more_look() -> None:
    assert decided_after([1, 0, 0, 0]) == decided_after([1, 0]) == [1]
    assert decided_after([1, 1, 0, 0]) == [2]


def test_after_a_decision_the_next_is_planned_anew() -> None:
    assert decided_after([1, 0, 0, 1, 0, 0, 0]) == [1, 2]


def test_what_is_planned_and_not_decided_is_pending() -> None:
    async def run() -> list[bool]:
        gather = Gather(lambda: None, lambda: 1, enough=100, turns=1)
        found = [gather.pending]
        gather.plan()
        for _ in range(4):
            found.append(gather.pending)
            await asyncio.sleep(0)
        return found

    assert asyncio.run(run()) == [False, True, True, False, False]
