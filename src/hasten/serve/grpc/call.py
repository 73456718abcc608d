"""One call on a connection: what it sent, what it waits for, and how it is answered.

A method sees a `Call` and nothing of HTTP/2; a connection sees messages in and out and nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hasten.errors import RequestError
from hasten.serve.access import NOBODY, Operation
from hasten.wire.base import invalid
from hasten.wire.grpc_framing import MessageReader

__all__ = ["Call", "Line", "Method", "Parts"]

Parts = list[bytes | memoryview]


class Line(Protocol):
    """What a call needs of its connection."""

    def send(self, call: Call, parts: Parts) -> None:
        """Send one message of the answer."""
        ...

    def finish(self, call: Call, error: RequestError | None) -> None:
        """End the call with a status; what its client still sends is not read."""
        ...

    def resume(self, call: Call) -> None:
        """Read on where the call left messages waiting."""
        ...


def _nothing(call: Call) -> None:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One method of a service, and what access to it means. `take` gets each message of a call, exactly one where it is
    not `streaming`; `end` is told that a streaming client has sent its last, when that was taken.
    """

    operation: Operation
    take: Callable[[Call, bytes], None]
    streaming: bool = False
    end: Callable[[Call], None] = _nothing


class Call:
    """The state of one call. Times are seconds on the event loop's clock.

    `cancel` gives back the call's places in queues. A call that `watches` stays open without being under way. `ahead`
    are the requests of a streaming call that are under way; at `most_ahead` it takes no more, and its client is held
    back by flow control. `caller` is whom the access let in, `lane` the one that the client named.
    """

    __slots__ = (
        "_ended", "_line", "ahead", "begun", "caller", "cancel", "counted", "deadline", "done", "finished",
        "half_closed", "id", "lane", "messages", "method", "most_ahead", "reader", "state", "unread", "watches",
    )  # fmt: skip

    def __init__(
        self, id_: int, line: Line, method: Method, reader: MessageReader, begun: float, most_ahead: int
    ) -> None:
        self.id = id_
        self._line = line
        self.method = method
        self.reader = reader
        self.begun = begun
        self.most_ahead = most_ahead
        self.deadline: float | None = None
        self.caller = NOBODY
        self.lane = ""
        self.cancel: Callable[[], None] | None = None
        self.ahead = self.counted = self.unread = self.messages = 0
        self.done = self.half_closed = self.watches = self._ended = False
        self.finished = 0.0
        self.state: object = None

    @property
    def has_room(self) -> bool:
        """Whether further messages are taken."""
        return self.ahead < self.most_ahead

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
        self._line.send(self, parts)

    def reply(self, parts: Parts) -> None:
        """Send the only message, and that all is well."""
        self._line.send(self, parts)
        self._line.finish(self, None)

    def finish(self, error: RequestError | None = None) -> None:
        """End the call, well or with an error."""
        self._line.finish(self, error)

    def resume(self) -> None:
        """Take messages that were left waiting."""
        self._line.resume(self)

    def _take_only(self) -> None:
        message = self.reader.next()
        if message is None or self.reader.buffered:
            raise invalid("The call has not exactly one whole message.")
        self.method.take(self, message)

    def _take_all(self) -> None:
        while self.has_room and not self.done:
            message = self.reader.next()
            if message is None:
                break
            self.method.take(self, message)
        else:
            return
        if self.half_closed and not self._ended:
            if self.reader.buffered:
                raise invalid("The last message of the call is cut off.")
            self._ended = True
            self.method.end(self)
