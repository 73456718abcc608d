"""What becomes of requests: the states of one, and how many of each lane are in which. Pure.

Every request is in one state at any time and ends in one of four; the property tests hold the scheduler to that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from hasten.serve.events import Waiting

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
    """Requests by lane and state; `refusals` by lane and reason. Lanes are named by their numbers; a request of an
    unknown lane counts under -1.
    """

    def __init__(self) -> None:
        self.states: Counter[tuple[int, State]] = Counter()
        self.refusals: Counter[tuple[int, str]] = Counter()

    def move(self, lane: int, state: State, happening: Happening, count: int = 1) -> None:
        """So many requests of a lane changed state; those that arrive were in none before."""
        if state != "arriving":
            self.states[lane, state] -= count
        self.states[lane, REQUEST[state, happening]] += count

    def move_all(self, batch: Sequence[Waiting], state: State, happening: Happening) -> None:
        """The requests of a batch changed state."""
        counts: dict[int, int] = {}
        for request in batch:
            counts[request.lane] = counts.get(request.lane, 0) + 1
        for lane, count in counts.items():
            self.move(lane, state, happening, count)

    def refuse(self, lane: int, state: State, reason: str) -> None:
        """A request was refused."""
        self.move(lane, state, "refuse")
        self.refusals[lane, reason] += 1
