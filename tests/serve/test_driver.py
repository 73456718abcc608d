from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from tests.serve.engines import ask, running

from hasten.bundle.read import Bundle
from hasten.engine.confine import WorkerLimits
from hasten.errors import RequestError
from hasten.serve.config import LaneTable, ModelTable
from hasten.serve.core import Drain
from hasten.serve.lull import Lull
from hasten.serve.origin import Origin
from hasten.serve.plan import Plan, Rules
from hasten.serve.service import ModelService
from hasten.spec.compiled import is_compiled
from hasten.spec.event import Event, Ran, Refused, Served
from hasten.spec.request import Request, Response


def in_a_loop(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(body())


def test_what_comes_together_to_an_idle_engine_runs_as_one_batch(bundle: Bundle) -> None:
    told: list[Event] = []

    async def body() -> None:
        async with running(bundle, sink=told.append) as service:
            await asyncio.gather(*(service.infer(ask(i)) for i in range(5)))

    in_a_loop(body)
    assert [event.batch for event in told if isinstance(event, Served)] == [5] * 5


def test_whoever_leaves_in_the_turn_of_the_loop_in_which_it_came_takes_no_place(bundle: Bundle) -> None:
    told: list[Event] = []

    async def body() -> None:
        async with running(bundle, sink=told.append) as service:
            service.submit(ask(0), lambda _: None)()
            await service.infer(ask(1))
            assert not len(service.driver.core.lanes)

    in_a_loop(body)
    assert [event.batch for event in told if isinstance(event, Served)] == [1]


def test_what_comes_while_the_engine_is_busy_runs_as_one_batch(bundle: Bundle, expected: Any) -> None:
    told: list[Event] = []

    async def body() -> None:
        async with running(bundle, sink=told.append) as service:
            first = asyncio.ensure_future(service.infer(ask(0)))
            while not service.driver.core.is_busy():
                await asyncio.sleep(0)
            others = [service.infer(ask(i, rows=1 + i % 2)) for i in range(1, 5)]
            answers = await asyncio.gather(first, *others)
            for i, answer in enumerate(answers):
                np.testing.assert_allclose(answer.outputs["y"], expected(np.full((1 + i % 2, 4), i)), rtol=1e-6)

    in_a_loop(body)
    served = [event for event in told if isinstance(event, Served)]
    assert [event.batch for event in served] == [1, 4, 4, 4, 4]
    assert {(event.model, event.variant) for event in served} == {("tiny", "reference")}


def test_a_full_queue_refuses_and_what_was_accepted_is_answered(bundle: Bundle) -> None:
    async def body() -> None:
        async with running(bundle, rules=Rules(queue_capacity=2)) as service:
            first = asyncio.ensure_future(service.infer(ask(0)))
            while not service.driver.core.is_busy():
                await asyncio.sleep(0)
            others = [service.infer(ask(i)) for i in range(1, 9)]
            answers = await asyncio.gather(first, *others, return_exceptions=True)
            kinds = [answer.code if isinstance(answer, RequestError) else type(answer) for answer in answers]
            # Two wait; two more run at once where the engine is done with the first by then.
            assert kinds in ([Response] * n + ["overloaded"] * (9 - n) for n in (3, 5))

    in_a_loop(body)


def test_an_engine_that_fails_on_a_batch_answers_and_goes_on(bundle: Bundle) -> None:
    told: list[Event] = []
    misfit = Request(model="tiny", inputs={"x": np.zeros((1, 5), np.float32)})

    async def body() -> None:
        async with running(bundle, sink=told.append) as service:
            with pytest.raises(RequestError) as caught:
                await service.infer(misfit)
            assert caught.value.code == "internal"
            assert isinstance(await service.infer(ask(1)), Response)

    in_a_loop(body)
    assert [type(event).__name__ for event in told] == ["WorkerChanged", "Refused", "Ran", "Served", "Ran"]
    assert [event.failed for event in told if isinstance(event, Ran)] == [True, False]


def test_an_observer_that_fails_does_not_stop_the_queue(bundle: Bundle) -> None:
    complaints: list[dict[str, Any]] = []

    def broken(event: Event) -> None:
        raise OSError("disk full")

    async def body() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with running(bundle, sink=broken) as service:
            for i in range(3):
                async with asyncio.timeout(60):
                    assert isinstance(await service.infer(ask(i)), Response)

    in_a_loop(body)
    assert {str(complaint["exception"]) for complaint in complaints} == {"disk full"}


def test_an_answer_behind_which_nobody_waits_goes_before_the_books_and_after_the_next_batch_otherwise(
    bundle: Bundle,
) -> None:
    happened: list[str] = []

    def told(event: Event) -> None:
        if isinstance(event, Ran):
            happened.append("batch")

    async def body() -> None:
        async with running(bundle, sink=told) as service:
            service.submit(ask(0), lambda _: happened.append("answer"))
            while not service.driver.core.is_busy():
                await asyncio.sleep(0)
            service.submit(ask(1), lambda _: happened.append("answer"))
            await service.drain()
            await asyncio.sleep(0)

    in_a_loop(body)
    assert happened == ["batch", "answer", "answer", "batch"]


def test_a_timer_that_fires_early_is_set_again(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        call_later = loop.call_later
        monkeypatch.setattr(loop, "call_later", lambda delay, *call: call_later(delay / 2, *call))
        service = ModelService(bundle)  # its engine never starts, so that the request can only wait
        with pytest.raises(RequestError, match="deadline"):
            await service.infer(ask(1, timeout_us=50_000))
        async with asyncio.timeout(10):
            while len(service.driver.core.lanes):
                await asyncio.sleep(0)
        await service.close()

    in_a_loop(body)


def test_the_deadline_of_its_lane_ends_a_request_that_runs(bundle: Bundle) -> None:
    async def body() -> None:
        lanes = (LaneTable(name="fast", deadline_s=0.2), LaneTable(name="slow"))
        async with running(bundle, rules=Rules(lanes=lanes)) as service:
            await service.infer(ask(1))
            assert service.engine_pid is not None
            os.kill(service.engine_pid, signal.SIGSTOP)
            try:
                # What waits would be told that it waited.
                with pytest.raises(RequestError, match=r"^The deadline passed\.$"):
                    await service.infer(ask(1, priority=1))
            finally:
                os.kill(service.engine_pid, signal.SIGCONT)
            await service.infer(ask(1))

    in_a_loop(body)


def test_a_receiver_is_called_once_and_never_before_submit_returned(bundle: Bundle) -> None:
    async def body() -> None:
        async with running(bundle, rules=Rules(queue_capacity=1)) as service:
            results: list[list[Response | RequestError]] = [[], [], []]
            for i, received in enumerate(results):
                service.submit(ask(i), received.append)
                assert not received
            await service.drain()
            assert [len(received) for received in results] == [1, 1, 1]
            [refused] = results[2]
            assert isinstance(refused, RequestError) and refused.code == "overloaded"

    in_a_loop(body)


def test_after_cancelling_a_receiver_hears_nothing_even_if_its_answer_is_on_the_way(bundle: Bundle) -> None:
    async def body() -> None:
        async with running(bundle, rules=Rules(queue_capacity=1)) as service:
            heard: list[Response | RequestError] = []
            running_one = service.submit(ask(1), heard.append)
            waiting = service.submit(ask(2), heard.append)
            refused = service.submit(ask(3), heard.append)
            for cancel in (running_one, waiting, refused):
                cancel()
                cancel()
            assert isinstance(await service.infer(ask(4)), Response), "the places are free again"
            await service.drain()
            assert heard == []

    in_a_loop(body)


def test_a_receiver_that_fails_costs_nobody_else_an_answer(bundle: Bundle) -> None:
    complaints: list[dict[str, Any]] = []

    def broken(result: Response | RequestError) -> None:
        raise ZeroDivisionError

    async def body() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with running(bundle) as service:
            heard: list[Response | RequestError] = []
            service.submit(ask(0), heard.append)
            service.submit(ask(1), broken)
            service.submit(ask(2), heard.append)
            await service.drain()
            assert [type(result) for result in heard] == [Response, Response]

    in_a_loop(body)
    assert [type(complaint["exception"]) for complaint in complaints] == [ZeroDivisionError]


@pytest.mark.skipif(is_compiled(), reason="what is compiled calls its own classes past any stand-in")
@pytest.mark.parametrize(("nice", "planned"), [(5, True), (0, False)])
def test_refusals_gather_while_engines_that_share_the_servers_core_are_busy(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, nice: int, planned: bool
) -> None:
    plans: list[int] = []
    monkeypatch.setattr(Lull, "plan", lambda lull, refused: plans.append(refused))

    async def body() -> None:
        limits = WorkerLimits(nice=nice)
        async with running(bundle, rules=Rules(queue_capacity=1), limits=limits) as service:
            await service.infer(ask(0))
            assert not plans
            for i in range(3):
                service.submit(ask(i), lambda _: None)
            await service.drain()

    in_a_loop(body)
    # One of the three runs, one waits, and one is too many.
    assert plans == ([1] if planned else [])


@pytest.mark.parametrize(("one_core", "batches"), [(True, [1, 5]), (False, [1, 2, 3])])
def test_on_a_lone_core_what_ends_a_batch_brings_goes_with_what_waits(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, one_core: bool, batches: list[int]
) -> None:
    monkeypatch.setattr(Plan, "one_core", one_core)
    told: list[Event] = []

    async def body() -> None:
        async with running(bundle, sink=told.append) as service:

            def answered(_: Response | RequestError) -> None:
                # Clients that ask again as soon as they have an answer.
                for i in range(3):
                    service.submit(ask(i), lambda _: None)

            assert service.engine_pid is not None
            # An engine that stands still is busy until all of these wait.
            os.kill(service.engine_pid, signal.SIGSTOP)
            try:
                service.submit(ask(0), answered)
                while not service.driver.core.is_busy():
                    await asyncio.sleep(0)
                for i in range(2):
                    service.submit(ask(i), lambda _: None)
                while len(service.driver.core.lanes) < 2:
                    await asyncio.sleep(0)
            finally:
                os.kill(service.engine_pid, signal.SIGCONT)
            await service.driver.desk.empty.wait()

    in_a_loop(body)
    assert [event.requests for event in told if isinstance(event, Ran)] == batches


def test_what_would_be_refused_is_refused_before_its_data_are_there_and_counted_once(bundle: Bundle) -> None:
    told: list[Event] = []

    async def body() -> None:
        async with running(bundle, sink=told.append, rules=Rules(queue_capacity=1)) as service:
            assert service.turn_away(ask(0), Origin(0.0)) is None
            assert service.engine_pid is not None
            # An engine that stands still is busy for as long as the test needs it to be.
            os.kill(service.engine_pid, signal.SIGSTOP)
            try:
                first = asyncio.ensure_future(service.infer(ask(0)))
                while not service.driver.core.is_busy():
                    await asyncio.sleep(0)
                second = asyncio.ensure_future(service.infer(ask(1)))
                while not service.driver.core.lanes.count:
                    await asyncio.sleep(0)
                refused = service.turn_away(ask(2), Origin(0.0))
                assert refused is not None and (refused.code, refused.message) == ("overloaded", "The queue is full.")
                assert service.turn_away(ask(2, priority=9), Origin(0.0, wish="none")) is None
            finally:
                os.kill(service.engine_pid, signal.SIGCONT)
            await asyncio.gather(first, second)

    in_a_loop(body)
    assert [event.code for event in told if isinstance(event, Refused)] == ["overloaded"]


def test_after_a_refusal_others_of_its_lane_are_refused_at_once_until_an_engine_takes_a_batch(bundle: Bundle) -> None:
    told: list[Event] = []
    lanes = (LaneTable(name="first"), LaneTable(name="second"))
    rules = Rules(lanes=lanes, queue_capacity=1)
    origins = [Origin(0.0, wish=name) for name in ("first", "second")]

    async def body() -> None:
        async with running(bundle, sink=told.append, rules=rules) as service:
            assert service.engine_pid is not None
            os.kill(service.engine_pid, signal.SIGSTOP)
            try:
                answers = [asyncio.ensure_future(service.infer(ask(0)))]
                while not service.driver.core.is_busy():
                    await asyncio.sleep(0)
                answers.append(asyncio.ensure_future(service.infer(ask(1))))
                while not service.driver.core.lanes.count:
                    await asyncio.sleep(0)
                # It would be refused, but nobody has been.
                assert [service.refuse(ask(2), origin) for origin in origins] == [None, None]
                service.submit(ask(2), lambda _: None, origins[1])
                while not service.driver.is_crowded:
                    await asyncio.sleep(0)
                first, second = (service.refuse(ask(3), origin) for origin in origins)
                assert first is None
                assert second is not None and second.message == "The queue is full."
                assert service.refuse(ask(3, priority=9), Origin(0.0, wish="none")) is None
            finally:
                os.kill(service.engine_pid, signal.SIGCONT)
            await asyncio.gather(*answers)
            assert not service.driver.is_crowded
            assert service.refuse(ask(3), origins[1]) is None
            assert dict(service.tally.failures) == {"overloaded": 2}

    in_a_loop(body)
    assert [(event.lane, event.code) for event in told if isinstance(event, Refused)] == [("second", "overloaded")] * 2


def test_a_deadline_counts_from_the_beginning_of_a_sleep_in_which_the_request_may_have_come(bundle: Bundle) -> None:
    async def body() -> None:
        async with running(bundle, limits=WorkerLimits(nice=5)) as service:
            lull = service.driver._lull
            assert lull is not None
            assert isinstance(await service.infer(ask(0, timeout_us=5_000_000)), Response)
            lull.since = time.monotonic() - 10.0
            with pytest.raises(RequestError, match="had passed on arrival"):
                await service.infer(ask(0, timeout_us=5_000_000))

    in_a_loop(body)


def test_what_may_be_answered_from_the_cache_is_not_refused_unseen(bundle: Bundle) -> None:
    async def body() -> None:
        rules = Rules(queue_capacity=1, models={"tiny": ModelTable(cache_bytes=1000)})
        async with running(bundle, rules=rules) as service:
            service.driver.core.handle(Drain(), 0.0)
            assert service.turn_away(ask(2), Origin(0.0)) is None

    in_a_loop(body)
