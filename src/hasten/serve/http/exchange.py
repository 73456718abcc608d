"""A request on its way through a connection."""

from __future__ import annotations

from hasten.serve.http.message import Handler, HttpRequest

__all__ = ["Exchange"]


class Exchange:
    """A request and who answers it; `last` closes the connection afterwards."""

    __slots__ = ("handler", "last", "request")

    def __init__(self, request: HttpRequest, handler: Handler, last: bool) -> None:
        self.request = request
        self.handler = handler
        self.last = last
