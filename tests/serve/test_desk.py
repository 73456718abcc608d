"""Whoever waits is told once, all together, whatever one of them does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from hasten.errors import RequestError
from hasten.serve.cache import HIT
from hasten.serve.desk import CACHE, Desk
from hasten.serve.origin import Origin
from hasten.serve.tally import Tally
from hasten.serve.ticket import Ticket
from hasten.serve.told import Batch, Teller
from hasten.spec.event import Event, Refused, Served
from hasten.spec.request import Request, Response

OUTPUTS = {"y": np.ones((1, 2), np.float32), "z": np.zeros((1, 1), np.float32)}


class Office:
    """A desk, what it counted and told, and what callers heard."""

    def __init__(self) -> None:
        self.told: list[Event] = []
        self.tally = Tally()
        self.heard: list[Response | RequestError] = []
        teller = Teller("m", "best", self.told.append)
        named: Any = {"best": {"variant": "best", "bundle": "d"}}
        self.desk = Desk({"y": "FP32", "z": "FP32"}, named, self.tally, teller)

    def come(self, id_: int = 1, *outputs: str, answer: Any = None) -> Ticket:
        request = Request(model="m", inputs={"x": np.zeros((1, 2), np.float32)}, outputs=outputs)
        return self.desk.take(id_, request, answer or self.heard.append, Origin(0.0), 0.0, 1)

    def answer(self, ticket: Ticket, closed: str = "idle") -> None:
        ticket.ran = Batch(1, closed, 0.0, 0.0, "best", started=0.0, finished=0.0)
        self.desk.settle(ticket.id, OUTPUTS)


def play(scene: Callable[[Office], Awaitable[None]]) -> Office:
    async def main() -> Office:
        office = Office()
        await scene(office)
        await asyncio.wait_for(office.desk.empty.wait(), 5)
        return office

    return asyncio.run(main())


def test_all_who_are_settled_are_told_at_the_end_of_the_turn() -> None:
    async def scene(office: Office) -> None:
        for id_ in (1, 2):
            office.answer(office.come(id_, "z"))
        assert not office.heard
        assert not office.desk.empty.is_set()

    office = play(scene)
    assert [list(one.outputs) for one in office.heard if isinstance(one, Response)] == [["z"], ["z"]]
    assert office.tally.answered == 2
    assert [type(event) for event in office.told] == [Served, Served]


@pytest.mark.parametrize(("closed", "more"), [("idle", {}), (CACHE, {"cache": HIT})])
def test_an_answer_says_where_it_comes_from(closed: str, more: dict[str, str]) -> None:
    async def scene(office: Office) -> None:
        office.answer(office.come(), closed)

    [answer] = play(scene).heard
    assert isinstance(answer, Response)
    assert answer.parameters == {"variant": "best", "bundle": "d", **more}
    assert set(answer.outputs) == {"y", "z"}


def test_what_is_settled_stays_settled() -> None:
    async def scene(office: Office) -> None:
        ticket = office.come()
        office.answer(ticket)
        office.desk.settle(ticket.id, RequestError("Too late.", code="deadline"))

    office = play(scene)
    assert len(office.heard) == 1
    assert not office.tally.failures


def test_an_alarm_answers_and_a_late_result_is_nobodys() -> None:
    async def scene(office: Office) -> None:
        ticket = office.come()
        office.desk.set_alarm(ticket, 0.0)
        await office.desk.empty.wait()
        office.answer(ticket)

    office = play(scene)
    assert [error.code for error in office.heard if isinstance(error, RequestError)] == ["deadline"]
    assert office.tally.failures == {"deadline": 1}


@pytest.mark.parametrize("settled", [False, True])
def test_who_left_hears_nothing_and_is_counted_once(settled: bool) -> None:
    async def scene(office: Office) -> None:
        ticket = office.come()
        if settled:
            office.answer(ticket)
        assert office.desk.leave(ticket) is not settled

    office = play(scene)
    assert not office.heard
    assert [type(event) for event in office.told] == [Refused]
    assert office.tally.failures == ({} if settled else {"cancelled": 1})


def test_a_receiver_that_fails_costs_the_others_nothing() -> None:
    complaints: list[dict[str, Any]] = []

    def failing(answer: Response | RequestError) -> None:
        raise OSError("gone")

    async def scene(office: Office) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        office.answer(office.come(1, answer=failing))
        office.answer(office.come(2))

    assert len(play(scene).heard) == 1
    assert [str(one["exception"]) for one in complaints] == ["gone"]


def test_everybody_gets_the_error_that_is_for_all() -> None:
    async def scene(office: Office) -> None:
        for id_ in (1, 2, 3):
            office.come(id_)
        office.desk.settle_all(RequestError("The server stopped.", code="unavailable"))

    office = play(scene)
    assert [error.code for error in office.heard if isinstance(error, RequestError)] == ["unavailable"] * 3
    assert office.tally.failures == {"unavailable": 3}
