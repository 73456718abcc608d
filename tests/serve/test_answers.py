"""Large inputs are digested beside the event loop, and nobody is lost on that way."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator

import numpy as np
import pytest
from tests.serve.engines import ask, code_of, running

from hasten.bundle.read import Bundle
from hasten.errors import RequestError
from hasten.serve import answers
from hasten.serve.answers import Answers
from hasten.serve.batch import Tensors
from hasten.serve.cache import key_of
from hasten.serve.config import ModelTable
from hasten.serve.plan import Rules
from hasten.serve.service import ModelService
from hasten.serve.told import Teller
from hasten.spec.event import Cached, Event
from hasten.spec.request import Request, Response

DECLARED = Rules(models={"tiny": ModelTable(cache_bytes=10**6)})
OUTPUTS: Tensors = {"y": np.zeros((1, 2), np.float32)}


class Held:
    """Digests that are not made until they are let go, and how many are being made."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.begun = threading.Event()
        self.threads: set[str] = set()

    def key_of(self, request: Request) -> bytes:
        self.threads.add(threading.current_thread().name)
        self.begun.set()
        assert self.let_go.wait(10)
        return key_of(request)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """For requests that are all taken for large."""
    held = Held()
    monkeypatch.setattr(answers, "_LARGE", -1)
    monkeypatch.setattr(answers, "key_of", held.key_of)
    yield held
    held.let_go.set()


def play(bundle: Bundle, scene: Callable[[ModelService], Awaitable[None]]) -> list[Event]:
    told: list[Event] = []

    async def main() -> None:
        async with running(bundle, rules=DECLARED, sink=told.append) as service:
            await scene(service)

    asyncio.run(main())
    return told


def test_small_inputs_are_looked_up_at_once_and_large_ones_later() -> None:
    async def main() -> list[str]:
        order: list[str] = []
        known = Answers(10**6, ("y",), Teller("m", "v", None))
        for name, size in (("large", 2**16), ("small", 4)):
            request = Request(model="m", inputs={"x": np.zeros((1, size), np.float32)})
            known.look(request, lambda key, outputs, name=name: order.append(name))
        words = Request(model="m", inputs={"x": np.full((1000,), b"word", object)})
        known.look(words, lambda key, outputs: order.append("words"))
        order.append("at once")
        await known.settle()
        known.close()
        return order

    assert asyncio.run(main()) == ["small", "at once", "large", "words"]


def test_what_was_kept_is_found_again_by_large_inputs_too() -> None:
    async def main() -> list[Tensors | None]:
        found: list[Tensors | None] = []
        known = Answers(10**6, ("y",), Teller("m", "v", None))
        request = Request(model="m", inputs={"x": np.zeros((1, 2**16), np.float32)})
        for _ in range(2):
            known.look(request, lambda key, outputs: (found.append(outputs), known.keep(key, request, OUTPUTS)))
            await known.settle()
        known.close()
        return found

    first, second = asyncio.run(main())
    assert first is None
    assert second is not None
    np.testing.assert_array_equal(second["y"], OUTPUTS["y"])


def test_the_loop_serves_on_while_a_digest_is_made(bundle: Bundle, held: Held) -> None:
    async def scene(service: ModelService) -> None:
        first = asyncio.ensure_future(service.infer(ask(1)))
        await asyncio.to_thread(held.begun.wait, 30)
        held.let_go.set()
        await first
        second = await service.infer(ask(1))
        assert second.parameters["cache"] == "hit"
        assert all(name.startswith("digest") for name in held.threads)

    told = play(bundle, scene)
    assert [event.what for event in told if isinstance(event, Cached)] == ["miss", "kept", "hit"]


def test_who_leaves_before_the_digest_is_made_is_not_answered(bundle: Bundle, held: Held) -> None:
    async def scene(service: ModelService) -> None:
        given: list[Response | RequestError] = []
        service.submit(ask(1), given.append)()
        held.let_go.set()
        await service.infer(ask(2))
        assert not given

    play(bundle, scene)


def test_a_deadline_holds_while_the_digest_is_made(bundle: Bundle, held: Held) -> None:
    async def scene(service: ModelService) -> None:
        assert await code_of(service, ask(1, timeout_us=1000)) == "deadline"

    play(bundle, scene)


def test_a_drain_waits_for_digests_and_loses_nobody(bundle: Bundle, held: Held) -> None:
    async def scene(service: ModelService) -> None:
        waiting = asyncio.ensure_future(service.infer(ask(1)))
        await asyncio.to_thread(held.begun.wait, 30)
        drained = asyncio.ensure_future(service.drain())
        held.let_go.set()
        assert (await waiting).parameters == {"variant": "reference", "bundle": bundle.digest}
        await drained

    play(bundle, scene)


def test_a_server_that_stops_answers_who_waits_for_a_digest(bundle: Bundle, held: Held) -> None:
    async def scene(service: ModelService) -> None:
        waiting = asyncio.ensure_future(service.infer(ask(1)))
        await asyncio.to_thread(held.begun.wait, 30)
        await service.close()
        held.let_go.set()
        with contextlib.suppress(RequestError):
            await waiting
        assert isinstance(waiting.exception(), RequestError)

    play(bundle, scene)


def test_a_digest_that_fails_costs_nobody_an_answer(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(request: Request) -> bytes:
        raise ZeroDivisionError

    async def scene(service: ModelService) -> None:
        complaints: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        assert (await service.infer(ask(1))).parameters == {"variant": "reference", "bundle": bundle.digest}
        assert len(complaints) == 1

    monkeypatch.setattr(answers, "_LARGE", -1)
    monkeypatch.setattr(answers, "key_of", fail)
    play(bundle, scene)


def test_beyond_so_many_digests_requests_are_computed_without_a_look(bundle: Bundle, held: Held) -> None:
    async def scene(service: ModelService) -> None:
        given: list[Response | RequestError] = []
        for _ in range(64):
            service.submit(ask(1), given.append)
        answer = await service.infer(ask(1))
        assert (answer.parameters, given) == ({"variant": "reference", "bundle": bundle.digest}, [])
        held.let_go.set()
        await service.drain()
        assert len(given) == 64

    told = play(bundle, scene)
    assert sum(isinstance(event, Cached) and event.what != "kept" for event in told) == 64
