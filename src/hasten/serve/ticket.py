"""A request under way in the driver. A Struct: made in C, and never compiled (docs/decisions/0024)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from hasten.errors import RequestError
from hasten.serve.batch import Tensors
from hasten.serve.origin import Origin
from hasten.serve.told import Batch
from hasten.spec.request import Request, Response

__all__ = ["Answer", "Ticket"]

Answer = Callable[[Response | RequestError], None]


class Ticket(Struct, eq=False):
    """A request of so many `rows`, its `answer` to call, and what that will be called with once it is `settled`."""

    id: int
    request: Request
    answer: Answer
    arrived: float
    origin: Origin
    rows: int
    ran: Batch | None = None
    alarm: asyncio.TimerHandle | None = None
    settled: Tensors | RequestError | None = None
    cancelled: bool = False
    # Under what its answer is kept; empty where it is not.
    key: bytes = b""
