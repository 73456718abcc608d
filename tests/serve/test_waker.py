from __future__ import annotations

import asyncio
import time

from hasten.serve.waker import Waker

FAR_S = 1000.0


def woken(*in_s: float, cancelled: bool = False) -> int:
    """How often a waker wakes in the first turns of the loop, asked for these times from now."""

    async def main() -> int:
        ticks: list[float] = []
        waker = Waker(lambda: ticks.append(time.monotonic()))
        for one in in_s:
            waker.at(time.monotonic() + one)
        if cancelled:
            waker.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        waker.cancel()
        return len(ticks)

    return asyncio.run(main())


def test_it_wakes_once_at_the_earliest_time_that_was_asked_for() -> None:
    assert woken(FAR_S, 0.0, 0.0, FAR_S) == 1
    assert woken(FAR_S, FAR_S) == 0


def test_a_time_that_has_passed_is_now() -> None:
    assert woken(-1.0) == 1


def test_who_was_woken_may_ask_for_the_same_time_again() -> None:
    async def main() -> int:
        ticks: list[int] = []
        at = time.monotonic()

        def tick() -> None:
            ticks.append(len(ticks))
            if len(ticks) < 3:
                waker.at(at)

        waker = Waker(tick)
        waker.at(at)
        for _ in range(10):
            await asyncio.sleep(0)
        return len(ticks)

    assert asyncio.run(main()) == 3


def test_cancelled_it_wakes_nobody() -> None:
    assert woken(0.0, cancelled=True) == 0
