"""What a transport knows of one request and tells the driver, so that the driver alone tells observers."""

from __future__ import annotations

import re
import secrets

from hasten.errors import RequestError
from hasten.serve.access import NOBODY, Caller

__all__ = ["Origin", "new_request_id", "request_id"]

_GOOD_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class _Ids:
    """Unlike any other process's, and cheap to count on from."""

    __slots__ = ("_count", "_prefix")

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(6)
        self._count = 0

    def next(self) -> str:
        """Return one more."""
        self._count += 1
        # Not in base 16: formats are parsed each time, and a million of these lines has one digit less.
        return f"{self._prefix}-{self._count}"


_IDS = _Ids()


class Origin:
    """When a request had arrived completely (seconds, monotonic; 0 for when it is submitted), its size and ids, who
    sent it, and the lane that it wishes to go in.

    The transport fills `bytes_out` in while it answers, and `error` where it could not carry the answer; the driver the
    `lane` that there is, which is empty until then.
    """

    __slots__ = (
        "bytes_in", "bytes_out", "caller", "error", "lane", "received", "request_id", "trace", "transport", "wish",
    )  # fmt: skip

    def __init__(
        self,
        received: float = 0.0,
        transport: str = "",
        request_id: str = "",
        trace: str = "",
        bytes_in: int = 0,
        wish: str = "",
        caller: Caller = NOBODY,
    ) -> None:
        self.received = received
        self.transport = transport
        self.request_id = request_id
        self.trace = trace
        self.bytes_in = bytes_in
        self.wish = wish
        self.caller = caller
        self.bytes_out = 0
        self.lane = ""
        self.error: RequestError | None = None


def request_id(given: str | None) -> str:
    """Return the client's own id where it is short and plain, else a new one."""
    return given if given is not None and _GOOD_ID.fullmatch(given) else new_request_id()


def new_request_id() -> str:
    """Return an id that no other request has."""
    return _IDS.next()
