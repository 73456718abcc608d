"""When a request is worth another try, and after which pause. Pure: time and chance come in as arguments."""

from __future__ import annotations

from dataclasses import dataclass

from hasten.errors import RequestError

__all__ = ["Retry"]

# A server sheds load and drains before it computes; a broken connection may hide an answer, and computing it once more
# changes nothing. What timed out has had its time, and what is invalid stays so.
_WORTH = frozenset({"overloaded", "rate_limited", "unavailable", "connection"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """At most `most` further tries. The server's own word on when to come back is the shortest pause; without one,
    pauses double from `first_s` up to `longest_s`, and chance takes up to half of each, so that clients do not come
    back together (exponential backoff with jitter).
    """

    most: int = 3
    first_s: float = 0.05
    longest_s: float = 2.0

    def pause_s(self, error: RequestError, tried: int, left_s: float, chance: float) -> float | None:
        """Return the pause after the try number `tried` (from 1), None to give up: also where the pause would outlast
        the `left_s` seconds. `chance` is from 0 to 1.
        """
        if error.code not in _WORTH or tried > self.most:
            return None
        pause = min(self.longest_s, self.first_s * 2 ** (tried - 1)) * (1 - chance / 2)
        if error.retry_after_s is not None:
            # A little later, and not all at once.
            pause = error.retry_after_s + pause * chance
        return pause if pause < left_s else None
