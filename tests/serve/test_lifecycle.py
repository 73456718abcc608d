from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hasten.serve.lifecycle import Lifecycle


class Part:
    """Connections that end when the test says so."""

    def __init__(self) -> None:
        self.draining = False
        self.done = asyncio.Event()
        self.asked_to_finish = asyncio.Event()

    async def finish(self) -> None:
        self.asked_to_finish.set()
        await self.done.wait()


class Door:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def in_a_loop(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await body()

    asyncio.run(bounded())


def test_the_parts_know_at_once_and_the_door_closes_after_the_delay() -> None:
    async def body() -> None:
        part, door = Part(), Door()
        life = Lifecycle([part], delay_s=0.05, grace_s=100.0)
        ended = asyncio.ensure_future(life.run(door))
        life.stop()
        assert life.draining and part.draining and not door.closed
        await part.asked_to_finish.wait()
        assert door.closed and not ended.done()
        part.done.set()
        await ended

    in_a_loop(body)


def test_what_comes_before_serving_is_given_up_when_it_is_time_to_stop() -> None:
    async def body() -> None:
        ended: list[str] = []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("given up")

        life = Lifecycle([], delay_s=100.0, grace_s=100.0)
        beginning = asyncio.ensure_future(life.begin(work()))
        await asyncio.sleep(0)
        life.stop()
        assert not await beginning
        assert ended == ["given up"]

    in_a_loop(body)


def test_what_fails_before_serving_is_told() -> None:
    async def work() -> None:
        raise OSError("no model")

    async def body() -> None:
        with pytest.raises(OSError, match="no model"):
            await Lifecycle([], delay_s=0.0, grace_s=0.0).begin(work())

    in_a_loop(body)


def test_a_second_request_to_stop_waits_for_nothing() -> None:
    async def body() -> None:
        part, door = Part(), Door()
        life = Lifecycle([part], delay_s=100.0, grace_s=100.0)
        ended = asyncio.ensure_future(life.run(door))
        life.stop()
        life.stop()
        await ended
        assert door.closed

    in_a_loop(body)


def test_what_does_not_end_in_its_grace_is_left_behind() -> None:
    async def body() -> None:
        part, door = Part(), Door()
        life = Lifecycle([part], delay_s=0.0, grace_s=0.05)
        life.stop()
        await life.run(door)
        assert part.asked_to_finish.is_set() and door.closed

    in_a_loop(body)
