"""How often each client may ask: a token bucket for each client, or one for a tenant that has a rate of its own. Pure:
the time comes in as an argument.

A bucket is kept as one number, the time at which it would be full again (the virtual scheduling of the generic cell
rate algorithm, ITU-T I.371 annex A), so that nothing has to be filled up from time to time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hasten.errors import UsageError

__all__ = ["Bucket", "Rate", "Rates"]

# Tokens are few; certificates may be as many as their authority makes.
_MANY = 4096


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

    def is_full(self, now: float) -> bool:
        """Whether all has come back that was taken."""
        return self._full_at <= now


class Rates:
    """A bucket of `rate` for each client. `tenants` have their own rates instead: all clients of one share its bucket.
    None is no limit.
    """

    def __init__(self, rate: Rate | None, tenants: Mapping[str, Rate | None] | None = None) -> None:
        self._rate = rate
        self._tenants = {name: None if own is None else Bucket(own) for name, own in (tenants or {}).items()}
        self._buckets: dict[str, Bucket] = {}

    def take(self, client: str, tenant: str, now: float) -> float:
        """As `Bucket.take`, of the tenant's bucket, or of the client's own."""
        if tenant in self._tenants:
            bucket = self._tenants[tenant]
        elif self._rate is None:
            return 0.0
        else:
            bucket = self._buckets.get(client) or self._new(client, self._rate, now)
        return 0.0 if bucket is None else bucket.take(now)

    def __len__(self) -> int:
        """How many clients are remembered."""
        return len(self._buckets)

    def _new(self, client: str, rate: Rate, now: float) -> Bucket:
        if len(self._buckets) >= _MANY:
            # A full bucket is as good as a new one.
            self._buckets = {name: bucket for name, bucket in self._buckets.items() if not bucket.is_full(now)}
        bucket = self._buckets[client] = Bucket(rate)
        return bucket
