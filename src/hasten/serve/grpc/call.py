"""One call on a connection: what it sent, what it waits for, and how it is answered.

A method sees a `Call` and nothing of HTTP/2; a connection sees messages in and out and nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec import Struct

from hasten.errors import RequestError
from hasten.serve.access import NOBODY, Caller, Operation
from hasten.serve.grpc.backlog import Backlog
from hasten.spec.event import NO_MODEL
from hasten.wire.base import invalid
from hasten.wire.grpc_framing import MessageReader

__all__ = ["Call", "Line", "Message", "Method", "Parts"]

Message = bytes | memoryview
Parts = list[bytes | memoryview]


class Line(Protocol):
    """What a call needs of its connection."""

    def send(self, call: Call, parts: Parts) -> None:
        """Send one message of the answer."""
        ...

    def reply(self, call: Call, parts: Parts) -> None:
        """Send the only message of the answer, and that all is well."""
        ...

    def finish(self, call: Call, error: RequestError | None) -> None:
        """End the call with a status; what its client still sends is not read."""
        ...

    def unsent(self, call: Call | None = None) -> int:
        """Return how many bytes of answers wait for the client to read: of a call, or of all of them."""
        ...

    @property
    def crowded(self) -> bool:
        """Whether answers to all clients together wait in too many bytes."""
        ...

    def resume(self, call: Call) -> None:
        """Read on where the call left messages waiting."""
        ...


def _nothing(call: Call) -> None:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One method of a service, and what access to it means. `take` gets each message of a call, exactly one where it is
    not `streaming`; `end` is told that a streaming client has sent its last, when that was taken. Where it takes
    `views`, a long message is one; all others are bytes.
    """

    operation: Operation
    take: Callable[[Call, Any], None]
    streaming: bool = False
    views: bool = False
    end: Callable[[Call], None] = _nothing


class Call(Struct, eq=False):
    """The state of one call on its `line`. Times are seconds on the event loop's clock.

    `cancel` gives back the call's places in queues. A call that `watches` stays open without being under way. `ahead`
    are the requests of a streaming call that are under way; at `most_ahead` it takes no more, nor while its `backlog`
    of answers is long, and its client is held back by flow control. `authorization` is what its client shows, `caller`
    whom the access let in, `lane` the one that the client named; `request_id` and `trace` are what it calls it; `model`
    and `bytes_in`, the size of its last message, are what observers are told of it.
    """

    id: int
    line: Line
    method: Method
    reader: MessageReader
    begun: float
    most_ahead: int
    backlog: Backlog | None = None
    deadline: float | None = None
    authorization: str | None = None
    caller: Caller = NOBODY
    lane: str = ""
    request_id: str | None = None
    trace: str = ""
    model: str = NO_MODEL
    cancel: Callable[[], None] | None = None
    ahead: int = 0
    bytes_in: int = 0
    counted: int = 0
    unread: int = 0
    messages: int = 0
    done: bool = False
    half_closed: bool = False
    watches: bool = False
    ended: bool = False
    finished: float = 0.0
    state: Any = None

    def __repr__(self) -> str:
        # A Struct would show what its client did to be let in.
        return f"<Call {self.id} of {self.model}>"

    @property
    def has_room(self) -> bool:
        """Whether further messages are taken."""
        if self.ahead >= self.most_ahead:
            return False
        if self.backlog is None:
            return True
        waiting = self.line.unsent(self)
        # Where memory is short, whoever leaves nothing unread is not held up by those who do.
        return self.backlog.has_room(waiting, self.ahead) and not (waiting and self.line.crowded)

    @property
    def resting(self) -> bool:
        """Whether nothing is under way in it, though it is open."""
        return not self.done and (self.watches or (self.method.streaming and not self.ahead))

    def read(self, ended: bool) -> None:
        """Take the messages that the reader has, and whether they are the client's last. Raises `RequestError` for what
        is no message.
        """
        self.half_closed = ended
        if self.method.streaming:
            self._take_all()
        elif ended:
            self._take_only()
        else:
            # A length beyond the limit is refused before the message is here.
            self.reader.look()

    def send(self, parts: Parts) -> None:
        """Send one message of several."""
        self.line.send(self, parts)

    @property
    def unsent(self) -> int:
        """Bytes of answers, of all calls of the connection, that wait for the client to read."""
        return self.line.unsent()

    def reply(self, parts: Parts) -> None:
        """Send the only message, and that all is well."""
        self.line.reply(self, parts)

    def finish(self, error: RequestError | None = None) -> None:
        """End the call, well or with an error."""
        self.line.finish(self, error)

    def resume(self) -> None:
        """Take messages that were left waiting."""
        self.line.resume(self)

    def _take_only(self) -> None:
        message = self.reader.next()
        if message is None or self.reader.buffered:
            raise invalid("The call has not exactly one whole message.")
        self._take(message)

    def _take_all(self) -> None:
        while self.has_room and not self.done:
            message = self.reader.next()
            if message is None:
                break
            self._take(message)
        else:
            return
        if self.half_closed and not self.ended:
            if self.reader.buffered:
                raise invalid("The last message of the call is cut off.")
            self.ended = True
            self.method.end(self)

    def _take(self, message: Message) -> None:
        self.bytes_in = len(message)
        self.method.take(self, message if self.method.views else bytes(message))
