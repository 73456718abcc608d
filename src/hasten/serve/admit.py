"""The door: which requests are let in, and what the others are told. Pure: time comes in as an argument.

A request that would miss its deadline costs engine time and helps nobody, so it is told at once (Clockwork, Gujarati
et al., OSDI 2020). Every refusal has a reason, under which it is counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hasten.serve.events import Arrived, Refuse
from hasten.serve.policy import Policy

__all__ = ["REASONS", "Door", "Reason", "refuse"]

# How soon is too soon to come back, in seconds.
_SOONEST_S = 0.001


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a request is refused: the protocol's code, the words for the client, and whether coming back may help."""

    code: str
    message: str
    passes: bool = True


REASONS: dict[str, Reason] = {
    "draining": Reason("unavailable", "The server is shutting down."),
    "no engine": Reason("unavailable", "The engine stopped and has not come back yet."),
    "unknown lane": Reason("invalid", "The model has no lane of that name.", passes=False),
    "too many rows": Reason("invalid", "The request has more rows than the model takes at once.", passes=False),
    "late on arrival": Reason("deadline", "The deadline had passed on arrival.", passes=False),
    "queue full": Reason("overloaded", "The queue is full."),
    "lane full": Reason("overloaded", "The queue of this lane is full."),
    "displaced": Reason("overloaded", "The queue is full of more urgent requests."),
    "tenant full": Reason("overloaded", "Too many requests of this tenant are waiting."),
    "shed": Reason("overloaded", "The server is overloaded and takes little background work."),
    "would be late": Reason("overloaded", "The answer would come too late."),
    "expired": Reason("deadline", "The deadline passed while the request waited.", passes=False),
    "too late to start": Reason("deadline", "The deadline would have passed before the answer.", passes=False),
    "too old": Reason("overloaded", "The request waited as long as its lane allows."),
}


def refuse(id_: int, reason: str, wait_s: float | None = None, message: str = "") -> Refuse:
    """Return the refusal; `wait_s` is how long the queue takes to empty, told where coming back may help."""
    words = REASONS[reason]
    again = max(_SOONEST_S, wait_s) if words.passes and wait_s is not None else None
    return Refuse(id_, words.code, message or words.message, again, reason)


class Door:
    """Bounds of the queue and what is predicted, held against one request. Counts who of each tenant is inside."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._tenants: Counter[str] = Counter()

    def entered(self, tenant: str) -> None:
        """A request of a tenant waits."""
        self._tenants[tenant] += 1

    def left(self, tenant: str) -> None:
        """It waits no longer."""
        self._tenants[tenant] -= 1
        if not self._tenants[tenant]:
            del self._tenants[tenant]

    def malformed(self, event: Arrived, deadline: float, now: float) -> Refuse | None:
        """Refuse what no server could take."""
        if deadline <= now:
            return refuse(event.id, "late on arrival")
        # One request of many rows runs alone where it is larger than a batch; only a batching model has a limit.
        most = self._policy.max_batch
        if 1 < most < event.rows:
            words = f"The request has {event.rows} rows; at most {most} are taken."
            return refuse(event.id, "too many rows", message=words)
        return None

    def full(self, lane: int, tenant: str, waiting: int, alike: int) -> str | None:
        """The reason of the bound that one more request would break; so many wait, and so many in its lane."""
        policy = self._policy
        if waiting >= policy.queue_capacity:
            return "queue full"
        capacity = policy.lanes[lane].capacity
        if capacity is not None and alike >= capacity:
            return "lane full"
        if tenant and policy.tenant_capacity is not None and self._tenants[tenant] >= policy.tenant_capacity:
            return "tenant full"
        return None
