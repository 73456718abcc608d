"""How often each client may ask: a token bucket for each. Pure: the time comes in as an argument.

A bucket is kept as one number, the time at which it would be full again (the virtual scheduling of the generic cell
rate algorithm, ITU-T I.371 annex A), so that nothing has to be filled up from time to time.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from hasten.errors import UsageError

__all__ = ["Bucket", "Rate", "Rates"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """`requests_per_s` for ever, and up to `burst` of them at once; 0 for as many as come in one second, at least one.
    Raises `UsageError` for a rate that lets nobody in.
    """

    requests_per_s: float
    burst: int = 0

    def __post_init__(self) -> None:
        if not (self.requests_per_s > 0 and self.burst >= 0):
            raise UsageError("A rate limit must let somebody in.", remedy="Leave it out, or write a number above 0.")

    @property
    def at_once(self) -> int:
        """Requests that may come at once after a rest."""
        return self.burst or max(1, int(self.requests_per_s))


class Bucket:
    """What one client has left. Times are seconds on any clock that does not go back."""

    __slots__ = ("_full_at", "_interval_s", "_slack_s")

    def __init__(self, rate: Rate) -> None:
        self._interval_s = 1 / rate.requests_per_s
        self._slack_s = self._interval_s * (rate.at_once - 1)
        self._full_at = float("-inf")

    def take(self, now: float) -> float:
        """Take one request out and return 0; or take nothing and return the seconds until there will be one."""
        early_s = self._full_at - self._slack_s - now
        if early_s > 0:
            return early_s
        self._full_at = max(self._full_at, now) + self._interval_s
        return 0.0


class Rates:
    """A bucket for each client. Whoever calls sees to it that there are only so many of them."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: dict[Hashable, Bucket] = {}

    def take(self, client: Hashable, now: float) -> float:
        """As `Bucket.take`, of the client's own bucket."""
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._buckets[client] = Bucket(self._rate)
        return bucket.take(now)
