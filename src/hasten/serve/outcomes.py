"""What becomes of requests: the states of one, and how many of each lane are in which. Pure.

Every request is in one state at any time and ends in one of four; the property tests hold the scheduler to that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

from hasten.serve.waiting import Waiting

__all__ = ["REQUEST", "Outcomes"]

State = Literal["arriving", "waiting", "running", "refused", "cancelled", "finished", "lost"]
Happening = Literal["admit", "refuse", "dispatch", "cancel", "finish", "engine down"]

REQUEST: dict[tuple[State, Happening], State] = {
    ("arriving", "admit"): "waiting",
    ("arriving", "refuse"): "refused",
    ("waiting", "dispatch"): "running",
    ("waiting", "refuse"): "refused",
    ("waiting", "cancel"): "cancelled",
    ("running", "finish"): "finished",
    ("running", "engine down"): "lost",
}


class Outcomes:
    """Requests by lane and state, of so many lanes; `refusals` by lane and reason. Lanes are named by their numbers; a
    request of an unknown lane counts under -1.
    """

    def __init__(self, lanes: int) -> None:
        # By state, one count for each lane; the last one is that of unknown lanes.
        self._counts: dict[State, list[int]] = {state: [0] * (lanes + 1) for state in get_args(State)}
        self.refusals: Counter[tuple[int, str]] = Counter()
        # Where most requests go first, and where they go when too many come.
        self._admitted = self._counts[REQUEST["arriving", "admit"]]
        self._refused = self._counts[REQUEST["arriving", "refuse"]]

    @property
    def states(self) -> dict[tuple[int, State], int]:
        """How many requests of each lane are in which state; only what is not 0."""
        last = len(self._counts["waiting"]) - 1
        return {
            (-1 if lane == last else lane, state): count
            for state, counts in self._counts.items()
            for lane, count in enumerate(counts)
            if count
        }

    def move(self, lane: int, state: State, happening: Happening) -> None:
        """A request of a lane changed state; one that arrives was in none before."""
        if state != "arriving":
            self._counts[state][lane] -= 1
        self._counts[REQUEST[state, happening]][lane] += 1

    def admit(self, lane: int) -> None:
        """A request that arrives is admitted: the same as `move`, for what happens most often."""
        self._admitted[lane] += 1

    def move_all(self, batch: Sequence[Waiting], state: State, happening: Happening) -> None:
        """The requests of a batch changed state."""
        before, after = self._counts[state], self._counts[REQUEST[state, happening]]
        for request in batch:
            lane = request.lane
            before[lane] -= 1
            after[lane] += 1

    def refuse(self, lane: int, state: State, reason: str) -> None:
        """A request was refused."""
        if state == "arriving":
            self._refused[lane] += 1
        else:
            self.move(lane, state, "refuse")
        self.refusals[lane, reason] += 1
