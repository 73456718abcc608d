"""A request in the scheduler's queue. It is read many times, which compiled code does without a call."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

from hasten.serve.events import Times

__all__ = ["Waiting"]


class Waiting:
    """A request in the queue: `lane` is its place in the policy's order of lanes.

    `deadline` is when its answer is worthless (infinite where never), `limit` when it has to be out of the queue one
    way or the other, `due` its place in the order of its lane, `work` the engine seconds that it is predicted to take,
    `times` what is known of batches of its shape, by variant. A request on `trial` runs although it is predicted to be
    late, to find out whether the prediction still holds.
    """

    __slots__ = (
        "arrived", "deadline", "due", "id", "key", "lane", "limit", "rows", "tenant", "times", "trial", "work",
    )  # fmt: skip

    def __init__(
        self,
        id: int,
        rows: int,
        key: Hashable,
        arrived: float,
        deadline: float = math.inf,
        limit: float = math.inf,
        due: float = math.inf,
        lane: int = 0,
        work: float = 0.0,
        tenant: str = "",
        trial: bool = False,
        times: Mapping[str, Times] | None = None,
    ) -> None:
        self.id = id
        self.rows = rows
        self.key = key
        self.arrived = arrived
        self.deadline = deadline
        self.limit = limit
        self.due = due
        self.lane = lane
        self.work = work
        self.tenant = tenant
        self.trial = trial
        self.times: Mapping[str, Times] = {} if times is None else times
