"""What carries messages to a server and replies back: the two protocols that a client is built on."""

from __future__ import annotations

from typing import Protocol

from hasten.client.dialect import Message, Reply

__all__ = ["AsyncWire", "Wire"]


class Wire(Protocol):
    """Carries one message at a time for each caller; safe for many threads."""

    def exchange(self, message: Message, timeout_s: float) -> Reply:
        """Send and await the reply. Raises `RequestError`: `timeout`, `connection`, or what the server said."""
        ...

    def close(self) -> None:
        """Give up all connections."""
        ...


class AsyncWire(Protocol):
    """The same on an event loop."""

    async def exchange(self, message: Message, timeout_s: float) -> Reply:
        """Send and await the reply; a cancelled caller gives the request up."""
        ...

    async def close(self) -> None:
        """Give up all connections."""
        ...
