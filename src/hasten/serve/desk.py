"""Who waits for an answer, and how each is told what came of its request.

Without coroutines, so that it can be compiled (docs/decisions/0024).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from hasten.errors import RequestError
from hasten.serve.batch import Tensors
from hasten.serve.cache import HIT
from hasten.serve.origin import Origin
from hasten.serve.tally import Tally
from hasten.serve.ticket import Answer, Ticket
from hasten.serve.told import Teller
from hasten.spec.request import Parameter, Request, Response
from hasten.spec.tensor import DType

__all__ = ["CACHE", "Desk"]

# What closed the batch, if one may say so, of an answer that no engine gave.
CACHE = "cache"


class Desk:
    """The requests of one model that wait. `dtypes` are those of all outputs; `named` holds, by variant, what an answer
    of it says of itself. Every request ends in one count of `tally` and one event of `teller`. Lives on the event loop.
    """

    def __init__(
        self, dtypes: dict[str, DType], named: Mapping[str, dict[str, Parameter]], tally: Tally, teller: Teller
    ) -> None:
        self._dtypes = dtypes
        self._every_output = tuple(dtypes)
        self._named = named
        self._tally = tally
        self._teller = teller
        self._settled: list[Ticket] = []
        self.waiting: dict[int, Ticket] = {}
        # Set while nobody waits.
        self.empty = asyncio.Event()
        self.empty.set()

    def take(self, id_: int, request: Request, answer: Answer, origin: Origin, now: float, rows: int) -> Ticket:
        """Take a request of so many rows in: `answer` is called once with what came of it."""
        if not self.waiting:
            self.empty.clear()
        ticket = self.waiting[id_] = Ticket(id_, request, answer, now, origin, rows)
        return ticket

    def set_alarm(self, ticket: Ticket, in_s: float) -> None:
        """Answer on time also while the request runs; the core sees to it that it does not start too late."""
        ticket.alarm = asyncio.get_running_loop().call_later(in_s, self._expire, ticket.id)

    def settle(self, id_: int, result: Tensors | RequestError, now: float | None = None) -> None:
        """Note what came of a request. Callers are told all together, after the engine got its next batch."""
        ticket = self.waiting.pop(id_, None)
        if ticket is None:
            return
        ticket.settled = result
        if ticket.alarm is not None:
            ticket.alarm.cancel()
        total_s = (time.monotonic() if now is None else now) - ticket.arrived
        if isinstance(result, RequestError):
            self._tally.fail(result.code, total_s)
        else:
            assert ticket.ran is not None
            self._tally.answer(ticket.rows, total_s, ticket.ran.started - ticket.arrived)
        if not self._settled:
            asyncio.get_running_loop().call_soon(self.deliver)
        self._settled.append(ticket)

    @property
    def telling(self) -> bool:
        """Whether anybody is settled and has not been told."""
        return bool(self._settled)

    def settle_all(self, error: RequestError) -> None:
        """Give everybody who waits the same error."""
        for id_ in tuple(self.waiting):
            self.settle(id_, error)

    def deliver(self) -> None:
        """Tell everybody who is settled, now rather than at the end of this turn of the loop."""
        settled, self._settled = self._settled, []
        for ticket in settled:
            if ticket.cancelled:
                self._teller.refused(ticket.origin, _left())
            else:
                self._call(ticket)
        self._look_round()

    def leave(self, ticket: Ticket) -> bool:
        """Note that a client left. Returns whether it had waited for anything still."""
        ticket.cancelled = True
        if self.waiting.pop(ticket.id, None) is None:
            return False
        self._tally.fail("cancelled", time.monotonic() - ticket.arrived)
        self._teller.refused(ticket.origin, _left())
        if ticket.alarm is not None:
            ticket.alarm.cancel()
        if not self._settled:
            self._look_round()
        return True

    def _expire(self, id_: int) -> None:
        self.settle(id_, RequestError("The deadline passed.", code="deadline"))

    def _look_round(self) -> None:
        if not self.waiting:
            self.empty.set()

    def _call(self, ticket: Ticket) -> None:
        result = ticket.settled
        assert result is not None
        begun = time.monotonic()
        try:
            ticket.answer(result if isinstance(result, RequestError) else self._response(ticket, result))
        except Exception as error:
            # One receiver that fails must not cost the others their answers.
            context = {"message": "The receiver of an answer failed.", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
        if isinstance(result, RequestError):
            self._teller.refused(ticket.origin, result)
        else:
            assert ticket.ran is not None
            self._teller.served(ticket.rows, ticket.origin, ticket.arrived, ticket.ran, begun)

    def _response(self, ticket: Ticket, outputs: Tensors) -> Response:
        request = ticket.request
        assert ticket.ran is not None
        parameters = self._named[ticket.ran.variant]
        if ticket.ran.closed == CACHE:
            parameters = {**parameters, "cache": HIT}
        wanted = request.outputs or self._every_output
        return Response(
            model=request.model,
            version=request.version,
            id=request.id,
            outputs=outputs if len(wanted) == len(outputs) == 1 else {name: outputs[name] for name in wanted},
            dtypes=self._dtypes,
            parameters=parameters,
        )


def _left() -> RequestError:
    return RequestError("The client left.", code="cancelled")
