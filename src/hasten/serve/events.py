"""What goes into the scheduler and what comes out of it.

Plain values, so that a recorded run can be played again. Times are seconds on the caller's clock, never read here.
What is made for many requests is a Struct, which takes a fourth of the time of a dataclass. Nobody changes an event or
a command; the others are not frozen, because that costs 0.2 us a field whenever one is made.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Protocol

from msgspec import Struct

__all__ = [
    "Announced", "Arrived", "Cancelled", "Command", "Dispatch", "Drain", "EngineDown", "EngineLost", "EngineUp",
    "Event", "Finished", "Refuse", "StartInstance", "StopInstance", "Tick", "Times", "Wake", "Warmed",
]  # fmt: skip


class Arrived(Struct, frozen=True):
    """A request came in. `deadline` is on the same clock as `now`; `lane` "" is the policy's first lane. Requests with
    equal `key` can be stacked.
    """

    id: int
    rows: int = 1
    key: Hashable = None
    deadline: float | None = None
    lane: str = ""
    tenant: str = ""


@dataclass(slots=True)
class Announced:
    """A request whose data are still on their way. Where it would be refused as things stand it is, and counts as one
    that came; else nothing happens, and it is `Arrived` later.
    """

    request: Arrived


@dataclass(slots=True)
class Cancelled:
    """The client of a request went away."""

    id: int


@dataclass(slots=True)
class Finished:
    """An engine instance is done with its batch, well or not; it took `seconds`."""

    seconds: float
    instance: int = 0


@dataclass(slots=True)
class EngineDown:
    """An instance cannot take work; what it was running is lost, and what waits keeps waiting."""

    instance: int = 0


@dataclass(slots=True)
class EngineLost:
    """An instance did not come back at once; the next try is in `retry_after_s`. Where all are lost, none waits."""

    retry_after_s: float
    instance: int = 0


@dataclass(slots=True)
class EngineUp:
    """An instance takes work."""

    instance: int = 0


@dataclass(slots=True)
class Warmed:
    """Batches of one size that an instance ran before it took requests, and how long each took."""

    variant: str
    rows: int
    key: Hashable
    seconds: tuple[float, ...]


@dataclass(slots=True)
class Tick:
    """Time passed; sent at the time that a `Wake` asked for."""


@dataclass(slots=True)
class Drain:
    """Accept nothing more; finish what waits."""


@dataclass(slots=True)
class Dispatch:
    """Run these requests together on this instance, with this variant ("" where the policy names none). `closed` is why
    no more are waited for, in the words of `hasten.serve.batcher.Formed`.
    """

    ids: tuple[int, ...]
    rows: int
    instance: int = 0
    variant: str = ""
    closed: str = field(default="", compare=False)


class Refuse(Struct):
    """Answer a request with an error; `code` is one of `hasten.wire.base.STATUS`, `reason` one of
    `hasten.serve.admit.REASONS`.
    """

    id: int
    code: str
    message: str
    retry_after_s: float | None = None
    reason: str = ""


class Wake(Struct):
    """Send a `Tick` at this time."""

    at: float


@dataclass(slots=True)
class StartInstance:
    """Start an engine instance; `EngineUp` or `EngineLost` tells how that went."""

    instance: int


@dataclass(slots=True)
class StopInstance:
    """End an engine instance. It runs nothing, and gets nothing more."""

    instance: int


Event = Announced | Arrived | Cancelled | Finished | EngineDown | EngineLost | EngineUp | Warmed | Tick | Drain
Command = Dispatch | Refuse | Wake | StartInstance | StopInstance


class Times(Protocol):
    """How long batches of one variant and shape take. `full` is how many rows make a full batch, `due` whether another
    number may be due to be tried.
    """

    full: int
    due: bool

    @property
    def known(self) -> bool:
        """Whether this is more than a guess."""
        ...

    def mean(self, rows: int) -> float:
        """Seconds of so many rows on average."""
        ...

    def bound(self, rows: int) -> float:
        """Seconds of so many rows at most, but for rare cases."""
        ...

    def next(self, waiting: int) -> int:
        """How many rows make a full batch now, so many being there."""
        ...
