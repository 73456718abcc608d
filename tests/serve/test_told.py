"""What observers are told: of requests by themselves, and of a real driver's whole day."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hasten.bundle.read import Bundle
from hasten.errors import RequestError
from hasten.serve.core import Arrived, Core, Dispatch, Drain, EngineDown, EngineLost, EngineUp, Finished, Policy, Tick
from hasten.serve.origin import Origin, new_request_id, request_id
from hasten.serve.plan import Rules
from hasten.serve.service import ModelService
from hasten.serve.told import Batch, Teller
from hasten.spec.event import Event, Ran, Refused, Served, WorkerChanged
from hasten.spec.request import Request

# `hasten.serve` is a function of the facade for whoever asks the package for it.
TOLD = importlib.import_module("hasten.serve.told")


def ask(value: float = 1.0, **fields: Any) -> Request:
    return Request(model="tiny", inputs={"x": np.full((1, 4), value, np.float32)}, **fields)


def told_of(arrived: float, batch: Batch, monkeypatch: pytest.MonkeyPatch, now: float = 10.0) -> Served:
    told: list[Event] = []
    monkeypatch.setattr(TOLD.time, "monotonic", lambda: now)
    Teller("tiny", "v", told.append).served(1, Origin(arrived - 0.5), arrived, batch, now - 0.25)
    [event] = told
    assert isinstance(event, Served)
    return event


def test_the_wait_while_every_instance_was_busy_is_the_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    event = told_of(1.0, Batch(4, "full", 3.0, free_since=3.0, requests=4, started=3.5, finished=9.0), monkeypatch)
    assert (event.queue_s, event.batch_s, event.engine_s) == (2.5, 0.0, 5.5)


def test_the_wait_while_an_instance_was_free_is_the_batchs(monkeypatch: pytest.MonkeyPatch) -> None:
    event = told_of(1.0, Batch(4, "delay", 3.0, free_since=0.0, requests=4, started=3.5, finished=9.0), monkeypatch)
    assert (event.queue_s, event.batch_s) == (0.5, 2.0)
    event = told_of(1.0, Batch(4, "delay", 3.0, free_since=2.0, requests=4, started=3.5, finished=9.0), monkeypatch)
    assert (event.queue_s, event.batch_s) == (1.5, 1.0)


def test_decoding_and_encoding_are_the_wires_and_the_whole_is_from_first_to_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    event = told_of(1.0, Batch(1, "full", 1.0, free_since=0.0, requests=1, started=1.0, finished=9.0), monkeypatch)
    assert (event.wire_s, event.decode_s, event.total_s) == (0.75, 0.5, 9.5)


@pytest.mark.parametrize(
    ("policy", "events", "closed"),
    [
        (Policy(max_batch=2), [Arrived(1, rows=2)], "full"),
        (Policy(max_batch=2), [Arrived(1)], "free"),
        (Policy(max_batch=2, max_delay_s=0.5), [Arrived(1), Tick()], "delay"),
        (Policy(max_batch=2, max_delay_s=9.0), [Arrived(1), Drain()], "drain"),
        (Policy(max_batch=1), [Arrived(1), Arrived(2), Finished(0.1)], "full"),
    ],
)
def test_a_batch_says_what_closed_it(policy: Policy, events: list[Any], closed: str) -> None:
    core = Core(policy)
    commands = [command for at, event in enumerate(events) for command in core.handle(event, now=float(at))]
    assert [command.closed for command in commands if isinstance(command, Dispatch)][-1] == closed


def test_an_instance_that_comes_back_is_told_apart_from_one_that_starts() -> None:
    told: list[Event] = []
    teller = Teller("tiny", "v", told.append)
    for event in (EngineUp(0), EngineUp(1), EngineDown(1), EngineLost(1.0, 1), EngineUp(1), Tick()):
        teller.happened(event)
    assert [(event.instance, event.state) for event in told if isinstance(event, WorkerChanged)] == [
        (0, "started"),
        (1, "started"),
        (1, "died"),
        (1, "lost"),
        (1, "restarted"),
    ]


def test_an_answer_that_its_transport_could_not_carry_is_a_refusal() -> None:
    told: list[Event] = []
    origin = Origin(1.0, request_id="abc")
    origin.error = RequestError("NaN is not JSON.", code="invalid")
    Teller("tiny", "v", told.append).served(1, origin, 1.0, Batch(1, "full", 1.0, 1.0), 2.0)
    assert [(type(event), event.request_id) for event in told if isinstance(event, Refused)] == [(Refused, "abc")]


def test_where_nobody_listens_nothing_is_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TOLD, "Served", None)
    Teller("tiny", "v", None).served(1, Origin(1.0), 1.0, Batch(1, "full", 1.0, 1.0), 2.0)


@pytest.mark.parametrize("bad", [None, "", "x" * 129, "a b", "a\nb", 'a"b', "ä", "\x1b[2J"])
def test_an_id_that_is_long_or_odd_is_replaced(bad: str | None) -> None:
    assert request_id("trace:1/a=b@c") == "trace:1/a=b@c"
    assert request_id(bad) != bad
    assert len({request_id(bad), request_id(bad), new_request_id()}) == 3


def day(bundle: Bundle, body: Callable[[ModelService], Any], **options: Any) -> list[Event]:
    """Everything that a real driver told while `body` used it."""
    told: list[Event] = []

    async def run() -> None:
        service = ModelService(bundle, sink=told.append, **options)
        try:
            await service.start()
            await body(service)
            await service.drain()
        finally:
            await service.close()

    asyncio.run(run())
    return told


def ends(told: list[Event]) -> Counter[str]:
    return Counter(
        "served" if isinstance(event, Served) else event.code for event in told if isinstance(event, Served | Refused)
    )


def test_every_request_ends_in_exactly_one_event(bundle: Bundle) -> None:
    got: Counter[str] = Counter()

    async def body(service: ModelService) -> None:
        assert service.engine_pid is not None
        os.kill(service.engine_pid, signal.SIGSTOP)
        first = asyncio.ensure_future(service.infer(ask()))
        while not service.driver.core.is_busy():
            await asyncio.sleep(0)
        left = service.submit(ask(), lambda _: None)
        late = service.submit(ask(timeout_us=1), lambda _: None)
        queued = [asyncio.ensure_future(service.infer(ask(i))) for i in range(3)]
        await asyncio.sleep(0)
        too_many = [asyncio.ensure_future(service.infer(ask(i))) for i in range(4)]
        async with asyncio.timeout(60):
            while not any(task.done() for task in too_many):
                await asyncio.sleep(0)
        left()
        os.kill(service.engine_pid, signal.SIGCONT)
        for result in await asyncio.gather(first, *queued, *too_many, return_exceptions=True):
            got[result.code if isinstance(result, RequestError) else "served"] += 1
        late()

    told = day(bundle, body, rules=Rules(queue_capacity=5))
    assert got["served"] > 0 and got["overloaded"] > 0
    assert ends(told) == got + Counter(cancelled=1, deadline=1)
    served = [event for event in told if isinstance(event, Served)]
    for event in served:
        stages = (event.wire_s, event.queue_s, event.batch_s, event.engine_s)
        assert min(stages) >= 0
        assert sum(stages) <= event.total_s + 1e-9
    # A request that left during its batch was computed all the same.
    assert sum(event.requests for event in told if isinstance(event, Ran)) >= len(served)


def test_gauges_say_what_waits_and_how_much_work_that_is(bundle: Bundle) -> None:
    async def body(service: ModelService) -> None:
        assert service.engine_pid is not None
        os.kill(service.engine_pid, signal.SIGSTOP)
        first = asyncio.ensure_future(service.infer(ask()))
        while not service.driver.core.is_busy():
            await asyncio.sleep(0)
        answers = [first, *(asyncio.ensure_future(service.infer(ask(i))) for i in range(3))]
        while not len(service.driver.core.lanes):
            await asyncio.sleep(0)
        busy = service.gauges()
        os.kill(service.engine_pid, signal.SIGCONT)
        [lane] = busy.lanes
        assert lane.requests == 3
        assert lane.work_s > 0
        assert (busy.ready, busy.instances, busy.instances_up) == (True, 1, 1)
        await asyncio.gather(*answers)
        assert service.gauges().lanes[0].work_s == 0

    day(bundle, body)


def test_an_engine_that_dies_is_told_with_its_batch_its_requests_and_its_return(bundle: Bundle) -> None:
    async def body(service: ModelService) -> None:
        assert service.engine_pid is not None
        os.kill(service.engine_pid, signal.SIGKILL)
        with pytest.raises(RequestError):
            await service.infer(ask())
        async with asyncio.timeout(60):
            while not service.ready:
                await asyncio.sleep(0.01)

    told = day(bundle, body)
    assert ends(told) == {"unavailable": 1}
    assert [event.failed for event in told if isinstance(event, Ran)] == [True]
    states = [event.state for event in told if isinstance(event, WorkerChanged)]
    assert states == ["started", "died", "restarted"]
