"""Which variant serves under load: down the bundle's measured ladder when a window was too much, up after calm.

Brown-out before black-out: cheaper variants first, then background work is shed down to its guaranteed share, and only
what is still too much is refused at the door. Choosing among variants by load follows INFaaS (Romero et al., ATC 2021)
and Proteus (Ahmad et al., ASPLOS 2024); the hysteresis is ours. Pure: time comes in as an argument.

Load is replayed as a fluid through a queue, so that a short burst that the deadlines allow to wait moves nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Literal

from hasten.serve.policy import Lane, Policy

__all__ = ["LADDER", "Ladder"]

State = Literal["first variant", "cheaper variant", "shedding"]
Signal = Literal["a cheaper one carries it", "none carries it", "a better one carries it", "the first carries it"]

LADDER: dict[tuple[State, Signal], State] = {
    ("first variant", "a cheaper one carries it"): "cheaper variant",
    ("first variant", "none carries it"): "shedding",
    ("cheaper variant", "a cheaper one carries it"): "cheaper variant",
    ("cheaper variant", "none carries it"): "shedding",
    ("cheaper variant", "a better one carries it"): "cheaper variant",
    ("cheaper variant", "the first carries it"): "first variant",
    ("shedding", "a better one carries it"): "cheaper variant",
    ("shedding", "the first carries it"): "first variant",
}

# The share of capacity up to which a level is trusted to carry a load: on the way down, and, warier, on the way up.
_CARRIES, _CARRIES_LONG = 0.95, 0.85
# A window belongs to what is too old when it ends this close to the border; times are sums of fractions.
_HAIR = 1e-9


class Ladder:
    """The level of one model: a place on the ladder, or, one further, the last place with background work shed."""

    def __init__(self, policy: Policy) -> None:
        self._lanes = policy.lanes
        self._window_s, self._calm_s, self._settle_s = policy.window_s, policy.calm_s, policy.settle_s
        self._rungs = len(policy.ladder)
        self._lowest = self._rungs - 1 + any(lane.background for lane in policy.lanes)
        # For each lane, the rung at each level: the cheapest that the level and the lane's floor allow.
        self._allowed = [_allowed(policy, lane, self._lowest + 1) for lane in policy.lanes]
        deadlines = [lane.deadline_s for lane in policy.lanes if lane.deadline_s is not None and not lane.background]
        self._patience_s = min(deadlines, default=2 * policy.window_s) / 2
        self._history: deque[tuple[float, tuple[float, ...]]] = deque()
        self._began: float | None = None
        self._moved = -math.inf
        self._streak = 0
        self.level = 0
        self.state: State = "first variant"
        self.transitions = 0

    @property
    def moves(self) -> bool:
        """Whether there is any other level."""
        return self._lowest > 0

    @property
    def shedding(self) -> bool:
        """Whether background work is taken only as far as its guaranteed share."""
        return self.state == "shedding"

    def rung(self, lane: int) -> int:
        """The place on the ladder of the variant that serves a lane now."""
        return self._allowed[lane][self.level]

    def observe(self, now: float, loads: Sequence[float], waiting_s: float, costs: Sequence[float]) -> None:
        """A window ended. `loads` is what came in each lane as a share of the capacity of the first variant,
        `waiting_s` how long the queue takes to empty, `costs` each rung's time relative to the first one's.
        """
        if self._began is None:
            self._began = now - self._window_s
        self._history.append((now, tuple(loads)))
        while self._history[0][0] <= now - self._calm_s + _HAIR:
            self._history.popleft()
        load = self._load(loads, self.level, costs)
        if waiting_s + (load - 1) * self._window_s > self._patience_s and load > _CARRIES:
            self._streak += 1
            self._down(now, loads, costs)
            return
        self._streak = 0
        calm, settled = now - self._began >= self._calm_s - _HAIR, now - self._moved >= self._settle_s - _HAIR
        if self.level and calm and settled:
            self._up(now, waiting_s, costs)

    def _down(self, now: float, loads: Sequence[float], costs: Sequence[float]) -> None:
        """To the first level that carries it. Soon after another move a single window is not enough: load that goes up
        and down must not be followed.
        """
        if self.level == self._lowest or (now - self._moved < self._settle_s - _HAIR and self._streak < 2):
            return
        below = range(self.level + 1, self._lowest + 1)
        level = next((n for n in below if self._load(loads, n, costs) <= _CARRIES), self._lowest)
        shed = level >= self._rungs
        self._move(now, level, "none carries it" if shed else "a cheaper one carries it")

    def _up(self, now: float, waiting_s: float, costs: Sequence[float]) -> None:
        """To the best level that carries the last window, once it would have carried the whole time of calm.

        While it would not have, a level in between is not taken on the way: it would keep the better one away until
        that has settled.
        """
        if waiting_s > self._patience_s / 2:
            return
        for level in range(self.level):
            loads = [self._load(loads, level, costs) for _, loads in self._history]
            if not self._carries_long(loads[-1:]):
                continue
            if self._carries_long(loads):
                self._move(now, level, "a better one carries it" if level else "the first carries it")
            return

    def _carries_long(self, loads: Sequence[float]) -> bool:
        return sum(loads) <= _CARRIES_LONG * len(loads) and self._deepest(loads) <= self._patience_s / 2

    def _move(self, now: float, level: int, signal: Signal) -> None:
        self.state = LADDER[self.state, signal]
        self.level = level
        self._moved = now
        self._streak = 0
        self.transitions += 1

    def _load(self, loads: Sequence[float], level: int, costs: Sequence[float]) -> float:
        """The share of the capacity that such loads take at a level."""
        total = 0.0
        for lane, load, allowed in zip(self._lanes, loads, self._allowed, strict=True):
            cost = load * costs[allowed[level]]
            total += min(cost, lane.min_share) if level >= self._rungs and lane.background else cost
        return total

    def _deepest(self, loads: Iterable[float]) -> float:
        """How long the queue would have become, in seconds, had these loads been served window by window."""
        waiting = deepest = 0.0
        for load in loads:
            waiting = max(0.0, waiting + (load - 1) * self._window_s)
            deepest = max(deepest, waiting)
        return deepest


def _allowed(policy: Policy, lane: Lane, levels: int) -> list[int]:
    """The rung of a lane at each level."""
    ladder = policy.ladder
    found: list[int] = []
    for level in range(levels):
        good = [n for n in range(min(level, len(ladder) - 1) + 1) if ladder[n].accuracy >= lane.accuracy_floor]
        found.append(max(good, key=lambda n: (n == level, ladder[n].speed)))
    return found
