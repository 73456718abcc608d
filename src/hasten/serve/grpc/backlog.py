"""Answers of a stream that its client has not read yet: how much may wait, and for how long. Pure: time comes in as an
argument.

HTTP/2 lets a client ask on while it reads nothing: flow control then keeps the answers here, and no socket is full.
"""

from __future__ import annotations

__all__ = ["Backlog"]


class Backlog:
    """Of one streaming call; `waiting` are the bytes of its answers that wait for the client. Requests are taken while
    the answers to come would still fit into `soft` bytes, if each is as long as the last one. Beyond `hard` there is
    no excuse.
    """

    __slots__ = ("_hard", "_last", "_mark", "_sent", "_since", "_soft")

    def __init__(self, soft: int, hard: int, now: float) -> None:
        self._soft = soft
        self._hard = hard
        self._last = self._sent = self._mark = 0
        self._since = now

    def has_room(self, waiting: int, ahead: int) -> bool:
        """Whether a request is taken beside `ahead` others that are under way."""
        return waiting + ahead * self._last < self._soft

    def put(self, size: int, waiting: int) -> bool:
        """Count an answer of `size` bytes in, before which others wait; say whether they are not too many."""
        self._last = size
        self._sent += size
        return waiting <= self._hard

    def is_late(self, waiting: int, now: float, within_s: float) -> bool:
        """Whether some answer has waited for more than `within_s` seconds. Ask often: what came in between counts from
        the next time.
        """
        if self._sent - waiting >= self._mark:
            # All is read that waited when the mark was made.
            self._mark, self._since = self._sent, now
        return now - self._since > within_s
