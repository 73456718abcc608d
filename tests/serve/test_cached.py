"""The response cache in the driver: off unless declared, labelled, counted, and never in the way of an error."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.serve.engines import ask, code_of, running, with_variants

from hasten.bundle.read import Bundle
from hasten.errors import RequestError
from hasten.serve.config import ModelTable, Scheduling
from hasten.serve.core import Command, Core, Dispatch
from hasten.serve.plan import Rules
from hasten.serve.service import ModelService
from hasten.spec.compiled import is_compiled
from hasten.spec.event import Cached, Event, Ran, Served
from hasten.spec.request import Request, Response

DECLARED = Rules(models={"tiny": ModelTable(cache_bytes=10**6)})


def told_of(bundle: Bundle, body: Callable[[ModelService], Coroutine[Any, Any, None]], **options: Any) -> list[Event]:
    """What observers are told while the body runs."""
    told: list[Event] = []

    async def run() -> None:
        async with running(bundle, sink=told.append, **options) as service:
            await body(service)

    asyncio.run(run())
    return told


def rows_run(told: list[Event]) -> int:
    return sum(event.rows for event in told if isinstance(event, Ran))


async def three_times(service: ModelService) -> None:
    for _ in range(3):
        await service.infer(ask(1))


def test_equal_requests_are_each_computed_where_no_cache_was_declared(bundle: Bundle) -> None:
    told = told_of(bundle, three_times)
    assert rows_run(told) == 3
    assert not any(isinstance(event, Cached) for event in told)


def test_equal_requests_are_computed_once_where_one_was_declared_and_each_is_told_of(bundle: Bundle) -> None:
    told = told_of(bundle, three_times, rules=DECLARED)
    assert rows_run(told) == 1
    assert [event.what for event in told if isinstance(event, Cached)] == ["miss", "kept", "hit", "hit"]
    served = [event for event in told if isinstance(event, Served)]
    assert [(event.batch, event.closed, event.variant) for event in served[1:]] == [(0, "cache", "reference")] * 2


def test_an_answer_from_the_cache_says_so_and_is_the_same(bundle: Bundle) -> None:
    async def body(service: ModelService) -> None:
        first, second = [await service.infer(ask(3, id=id_)) for id_ in ("a", "b")]
        assert first.parameters == {"variant": "reference", "bundle": bundle.digest}
        assert second.parameters == {"variant": "reference", "bundle": bundle.digest, "cache": "hit"}
        assert second.id == "b"
        np.testing.assert_array_equal(first.outputs["y"], second.outputs["y"])
        other = await service.infer(ask(4))
        assert "cache" not in other.parameters

    told_of(bundle, body, rules=DECLARED)


def test_an_error_is_not_kept(bundle: Bundle) -> None:
    misfit = Request(model="tiny", inputs={"x": np.zeros((1, 5), np.float32)})

    async def body(service: ModelService) -> None:
        assert [await code_of(service, misfit) for _ in range(2)] == ["internal"] * 2

    told = told_of(bundle, body, rules=DECLARED)
    assert [event.what for event in told if isinstance(event, Cached)] == ["miss", "miss"]


class Cheaply:
    """A scheduler that has whatever arrives run with the cheaper variant."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def arrive(self, *args: Any) -> list[Command]:
        commands = self._core.arrive(*args)
        return [dataclasses.replace(c, variant="cheap") if isinstance(c, Dispatch) else c for c in commands]


@pytest.mark.skipif(is_compiled(), reason="what is compiled takes no stand-in for its scheduler")
def test_what_a_cheaper_variant_computed_is_not_kept(bundle: Bundle) -> None:
    ladder = with_variants(bundle, {"reference": (9.0, 0.9), "cheap": (3.0, 0.8)})

    async def body(service: ModelService) -> None:
        service.driver.core = Cheaply(service.driver.core)  # type: ignore[assignment]  # it stands in for the core
        answers = [await service.infer(ask(1)) for _ in range(2)]
        assert [answer.parameters["variant"] for answer in answers] == ["cheap"] * 2

    told = told_of(ladder, body, rules=msgspec.structs.replace(DECLARED, scheduling=Scheduling(ladder=True)))
    assert [event.what for event in told if isinstance(event, Cached)] == ["miss", "miss"]


def test_whoever_gives_up_gets_no_answer_from_the_cache_either(bundle: Bundle) -> None:
    async def body(service: ModelService) -> None:
        await service.infer(ask(1))
        answers: list[Response | RequestError] = []
        service.submit(ask(1), answers.append)()
        await service.infer(ask(1))
        assert not answers

    told_of(bundle, body, rules=DECLARED)


def test_a_server_that_drains_refuses_what_it_knows_too(bundle: Bundle) -> None:
    async def body(service: ModelService) -> None:
        await service.infer(ask(1))
        await service.drain()
        assert await code_of(service, ask(1)) == "unavailable"

    told_of(bundle, body, rules=DECLARED)
