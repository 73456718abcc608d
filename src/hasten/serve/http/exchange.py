"""A request on its way through a connection. A Struct: made in C, and never compiled (docs/decisions/0024)."""

from __future__ import annotations

from msgspec import Struct

from hasten.serve.http.message import Handler, HttpRequest

__all__ = ["Exchange"]


class Exchange(Struct, eq=False):
    """A request and who answers it; `last` closes the connection afterwards."""

    request: HttpRequest
    handler: Handler
    last: bool
