"""One bundle's service as its owner has it: started, asked, drained."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.serve.engines import ask, running

from hasten.bundle.read import Bundle
from hasten.engine.confine import WorkerLimits
from hasten.errors import RequestError
from hasten.serve import service as service_module
from hasten.serve.plan import Rules
from hasten.spec.request import Response


def in_a_loop(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(body())


def test_a_caller_that_gives_up_frees_its_place(bundle: Bundle) -> None:
    async def body() -> None:
        async with running(bundle, rules=Rules(queue_capacity=1)) as service:
            first = asyncio.ensure_future(service.infer(ask(1)))
            second = asyncio.ensure_future(service.infer(ask(2)))
            await asyncio.sleep(0)  # both are in: one runs, one waits
            second.cancel()
            await asyncio.wait([second])
            third = asyncio.ensure_future(service.infer(ask(3)))
            assert isinstance(await first, Response)
            assert isinstance(await third, Response)
            assert second.cancelled()

    in_a_loop(body)


def test_draining_answers_what_is_under_way_and_refuses_the_rest(bundle: Bundle) -> None:
    async def body() -> None:
        async with running(bundle) as service:
            under_way = [asyncio.ensure_future(service.infer(ask(i))) for i in range(3)]
            await asyncio.sleep(0)  # all three are in
            await service.drain()
            assert all(isinstance(task.result(), Response) for task in under_way)
            with pytest.raises(RequestError) as caught:
                await service.infer(ask(9))
            assert caught.value.code == "unavailable"
            assert not service.ready

    in_a_loop(body)


@pytest.mark.parametrize(("nice", "wishes"), [(5, 1), (0, 0)])
def test_a_server_whose_engines_step_back_comes_first_on_their_core(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, nice: int, wishes: int
) -> None:
    wished: list[None] = []
    monkeypatch.setattr(service_module, "come_first", lambda: wished.append(None))

    async def body() -> None:
        async with running(bundle, limits=WorkerLimits(nice=nice)) as service:
            await service.infer(ask(0))

    in_a_loop(body)
    assert len(wished) == wishes
