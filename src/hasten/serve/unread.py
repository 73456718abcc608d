"""Answers that clients have not read yet: how many bytes they leave with the server, over HTTP and gRPC together.

Connections count what waits in them. Each has bounds of its own; together a thousand of them could still hold more than
the machine has, so that beyond a common bound nothing more is computed until somebody reads or is cut off.
"""

from __future__ import annotations

from hasten.errors import RequestError

__all__ = ["MOST_UNREAD", "Unread"]

MOST_UNREAD = 2**30


class Unread:
    """The count, `bytes`, and from when on it is too `much`: beyond `most`."""

    def __init__(self, most: int = MOST_UNREAD) -> None:
        self.most = most
        self.bytes = 0

    @property
    def much(self) -> bool:
        """Whether all clients together leave too much unread."""
        return self.bytes > self.most

    def check(self) -> None:
        """Raise `RequestError` where nothing more is to be computed."""
        if self.much:
            raise RequestError("Too many answers wait to be read.", code="overloaded", retry_after_s=1.0)
