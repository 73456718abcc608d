"""The requests of one streaming call: answered in the order in which they came, many under way at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from hasten.serve.grpc.call import Call, Parts

__all__ = ["Stream"]


class Stream:
    """Holds answers until those before them are sent. `call.ahead` counts what is under way or held."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._waiting: deque[int] = deque()
        self._answers: dict[int, Parts] = {}
        self._cancels: dict[int, Callable[[], None]] = {}
        self._next = 0
        self._ended = False
        call.cancel = self._cancel

    def place(self) -> int:
        """Return the place of the next request."""
        self._next += 1
        self._waiting.append(self._next)
        self._call.ahead += 1
        return self._next

    def under_way(self, place: int, cancel: Callable[[], None]) -> None:
        """A request is queued; `cancel` gives its place there back."""
        self._cancels[place] = cancel

    def put(self, place: int, parts: Parts) -> None:
        """An answer is here: send it, and those that waited for it."""
        self._cancels.pop(place, None)
        self._answers[place] = parts
        full = not self._call.has_room
        while self._waiting and self._waiting[0] in self._answers:
            self._call.send(self._answers.pop(self._waiting.popleft()))
            self._call.ahead -= 1
        if self._ended:
            self._finish_if_done()
        elif full:
            self._call.resume()

    def end(self) -> None:
        """The client has sent its last request."""
        self._ended = True
        self._finish_if_done()

    def _finish_if_done(self) -> None:
        if not self._waiting:
            self._call.finish()

    def _cancel(self) -> None:
        cancels, self._cancels = self._cancels, {}
        for cancel in cancels.values():
            cancel()
