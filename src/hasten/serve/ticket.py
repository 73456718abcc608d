"""A request under way in the driver. It is read many times, which compiled code does without a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hasten.errors import RequestError
from hasten.serve.batch import Tensors
from hasten.serve.origin import Origin
from hasten.serve.told import Batch
from hasten.spec.request import Request, Response

__all__ = ["Answer", "Ticket"]

Answer = Callable[[Response | RequestError], None]


class Ticket:
    """A request of so many `rows`, its `answer` to call, and what that will be called with once it is `settled`. `key`
    is under what its answer is kept; empty where it is not.
    """

    __slots__ = (
        "alarm", "answer", "arrived", "cancelled", "id", "key", "origin", "ran", "request", "rows", "settled",
    )  # fmt: skip

    def __init__(self, id: int, request: Request, answer: Answer, arrived: float, origin: Origin, rows: int) -> None:
        self.id = id
        self.request = request
        self.answer = answer
        self.arrived = arrived
        self.origin = origin
        self.rows = rows
        self.ran: Batch | None = None
        self.alarm: asyncio.TimerHandle | None = None
        self.settled: Tensors | RequestError | None = None
        self.cancelled = False
        self.key = b""
