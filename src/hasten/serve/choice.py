"""In which lane a request goes: as it says, as its token says, or where requests go that say nothing. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from hasten.errors import RequestError
from hasten.serve.access import Caller
from hasten.serve.policy import Lane

__all__ = ["LaneChoice"]


class LaneChoice:
    """Of one model's lanes. A name goes before a priority, and both before the token's own lane, than which a request
    may not be more urgent.
    """

    def __init__(self, lanes: Sequence[Lane], default: str) -> None:
        self._default = default
        self._single = len(lanes) == 1
        self._lanes = {lane.name: lane for lane in lanes}
        # The first of several lanes of one priority.
        self._by_priority = {lane.priority: lane.name for lane in reversed(lanes)}

    def of(self, named: str, priority: int, caller: Caller) -> str:
        """Return the name of the lane. `priority` is the protocol's, 0 for none; where there is one lane only, it means
        nothing. Raises `RequestError`: invalid for a lane that is not there, forbidden for one above the token's.
        """
        if not named and (not priority or self._single):
            return caller.lane or self._default
        if named and named not in self._lanes:
            raise self._unknown(f"lane {named[:64]!r}")
        lane = named or self._by_priority.get(priority)
        if lane is None:
            raise self._unknown(f"lane of priority {priority}")
        if caller.lane and self._lanes[lane].priority < self._lanes[caller.lane].priority:
            raise RequestError(f"The token is for the lane {caller.lane!r}; {lane!r} is more urgent.", code="forbidden")
        return lane

    def _unknown(self, what: str) -> RequestError:
        known = ", ".join(f"{lane.name} (priority {lane.priority})" for lane in self._lanes.values())
        return RequestError(f"The model has no {what}. It has: {known}.", code="invalid")
