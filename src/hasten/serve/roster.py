"""The engine instances as the scheduler sees them: which takes work, until when one is busy, which answers first.

States change by the table below and in no other way; what it does not name changes nothing. Pure: time comes in as an
argument. "engine up" and "engine lost" are what the driver reports of starts; a lost engine is started again by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from hasten.serve.events import EngineLost
from hasten.serve.policy import Policy
from hasten.serve.waiting import Waiting

__all__ = ["INSTANCE", "Happening", "Instance", "Roster", "State"]

State = Literal["off", "starting", "idle", "busy", "leaving", "down", "lost"]
Happening = Literal["start", "engine up", "dispatch", "finished", "engine down", "engine lost", "stop"]

INSTANCE: dict[tuple[State, Happening], State] = {
    ("off", "start"): "starting",
    ("starting", "engine up"): "idle",
    ("starting", "engine lost"): "lost",
    ("idle", "dispatch"): "busy",
    ("idle", "engine down"): "down",
    ("idle", "stop"): "off",
    ("busy", "finished"): "idle",
    ("busy", "engine down"): "down",
    ("busy", "stop"): "leaving",
    ("leaving", "finished"): "off",
    ("leaving", "engine down"): "off",
    ("leaving", "start"): "busy",
    ("down", "engine up"): "idle",
    ("down", "engine lost"): "lost",
    ("down", "stop"): "off",
    ("lost", "engine up"): "idle",
    # Tried again in vain: when the next try comes has changed.
    ("lost", "engine lost"): "lost",
    ("lost", "stop"): "off",
}


class Instance:
    """One engine instance. `slowness` is its time relative to the table's, 1 where all are alike."""

    __slots__ = ("batch", "busy_until", "loss", "number", "rows", "slowness", "state", "variant")

    def __init__(self, number: int, state: State, slowness: float) -> None:
        self.number = number
        self.state: State = state
        self.slowness = slowness
        self.batch: list[Waiting] = []
        self.rows = 0
        self.variant = ""
        self.busy_until = 0.0
        self.loss: EngineLost | None = None


class Roster:
    """All instances that the policy allows, of which some may be off. What is counted of them follows each `move`."""

    free: bool
    runs: bool
    working: int
    sharing: int
    wanted: int
    loss: EngineLost | None

    def __init__(self, policy: Policy, up: bool) -> None:
        most = policy.scale[1]
        self.alike = not policy.speeds
        speeds = policy.speeds or (1.0,) * most
        self.instances = [
            Instance(number, ("idle" if up else "down") if number < policy.instances else "off", 1 / speeds[number])
            for number in range(most)
        ]
        self._count()

    def move(self, instance: Instance, happening: Happening) -> bool:
        """Change an instance's state by the table; whether it names this change."""
        before = instance.state
        after = INSTANCE.get((before, happening))
        if after is None:
            return False
        instance.state = after
        if happening == "dispatch" or (happening == "finished" and before == "busy"):
            # One went from idle to busy or back, as with every batch: nothing else changed.
            self._idle += 1 if after == "idle" else -1
            self.free = self._idle > 0
            # Some leave, or those that work are not all idle.
            self.runs = self._leaving or self._idle < self.working
        else:
            self._count()
        return True

    def _count(self) -> None:
        """Every event asks, and few events change anything: counted when something changes."""
        states = [instance.state for instance in self.instances]
        self._idle, self._leaving = states.count("idle"), "leaving" in states
        # Whether one takes a batch now; whether one runs something; how many work; how many share what waits, for at
        # least one is taken to come back; how many should be up.
        self.free = self._idle > 0
        self.runs = "busy" in states or self._leaving
        self.working = self._idle + states.count("busy")
        self.sharing = max(1, self.working)
        self.wanted = len(states) - states.count("off") - states.count("leaving")
        losses = [instance.loss for instance in self.instances if instance.state == "lost" and instance.loss]
        all_lost = bool(losses) and len(losses) >= self.wanted
        # The loss that comes back first, where every instance that should be up is lost.
        self.loss = min(losses, key=lambda loss: loss.retry_after_s) if all_lost else None

    def starts_in(self, now: float) -> float:
        """Seconds until an instance is free, as predicted; 0 where one is, or where none is up."""
        if self.free:
            return 0.0
        soonest = math.inf
        for instance in self.instances:
            if instance.state == "busy" and instance.busy_until < soonest:
                soonest = instance.busy_until
        return soonest - now if now < soonest < math.inf else 0.0

    def first_idle(self) -> Instance | None:
        """The free instance of the lowest number."""
        for instance in self.instances:
            if instance.state == "idle":
                return instance
        return None

    def best(self, now: float, seconds: Callable[[], float], *, lone: bool) -> Instance | None:
        """The free instance that answers first. None: none is free, or the batch waits alone (`lone`) and an instance
        that is busy would still answer it sooner. `seconds` predicts its run on an instance of slowness 1.
        """
        if self.alike:
            return self.first_idle()
        free = [instance for instance in self.instances if instance.state == "idle"]
        if not free:
            return None
        chosen = min(free, key=lambda instance: instance.slowness)
        if not lone:
            return chosen
        run = seconds()
        sooner = [
            instance
            for instance in self.instances
            if instance.state == "busy"
            and max(0.0, instance.busy_until - now) + run * instance.slowness < run * chosen.slowness
        ]
        return None if sooner else chosen

    def startable(self) -> Instance | None:
        """Which instance to take on: one that has not left yet, or the first that is off."""
        for state in ("leaving", "off"):
            for instance in self.instances:
                if instance.state == state:
                    return instance
        return None

    def stoppable(self) -> Instance | None:
        """Which instance to give up: one that does nothing, the last one first."""
        order: Sequence[State] = ("lost", "down", "idle", "busy")
        for state in order:
            for instance in reversed(self.instances):
                if instance.state == state:
                    return instance
        return None
