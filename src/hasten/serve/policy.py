"""What an operator decides about one model's scheduling: lanes, bounds, the ladder of variants. Frozen values.

Without lanes, ladder and deadlines a policy is a bounded queue, first come, first served.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hasten.errors import UsageError

__all__ = ["Lane", "Policy", "Rung"]


def _require(holds: bool, message: str, remedy: str) -> None:
    if not holds:
        raise UsageError(message, remedy=remedy)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    """A class of requests. Lanes of lower `priority` (1 is most urgent) go first; those of one priority share by
    `weight`. `min_share` of the engines' time is kept for the lane whatever goes before it.

    No request waits longer than `max_age_s`, or, where it names none, has a later deadline than `deadline_s` from its
    arrival. Variants below `accuracy_floor` never serve the lane. `background` lanes are shed first. `capacity` bounds
    the requests that wait in the lane, on top of the model's own bound.
    """

    name: str = "default"
    priority: int = 1
    weight: float = 1.0
    min_share: float = 0.0
    max_age_s: float | None = None
    deadline_s: float | None = None
    accuracy_floor: float = 0.0
    background: bool = False
    capacity: int | None = None

    def __post_init__(self) -> None:
        _require(self.weight > 0, f"Lane {self.name!r} has weight {self.weight:g}.", "Give it a weight above 0.")
        _require(
            0 <= self.min_share < 1,
            f"Lane {self.name!r} has a minimum share of {self.min_share:g}.",
            "Write a share of at least 0 and below 1: 0.05 is 5 %.",
        )
        for name in ("max_age_s", "deadline_s"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"Lane {self.name!r} has {name} {value}.", "Write seconds above 0.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """A variant of the bundle's ladder: how many times as fast as the first one, and its measured accuracy."""

    variant: str
    speed: float = 1.0
    accuracy: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """One model's scheduling. `instances` engine instances at the start, later between `min_instances` and
    `max_instances` (both default to `instances`: no scaling); `speeds` how many times as fast as the first each is.

    Batches have at most `max_batch` rows. With `company` "window" an engine that is free waits up to `max_delay_s` for
    company (0: never); with "adaptive" it waits within that bound only where company is expected and pays.

    At most `queue_capacity` requests wait, of one tenant at most `tenant_capacity`. `ladder` goes from the variant that
    serves at normal load to ever cheaper ones; the server moves on it at ends of windows of `window_s`, down as soon as
    a window was too much, up once a better variant would have carried all of the last `calm_s`, but not within
    `settle_s` of the last move.
    """

    instances: int = 1
    max_batch: int = 1
    max_delay_s: float = 0.0
    queue_capacity: int = 256
    company: Literal["window", "adaptive"] = "window"
    lanes: tuple[Lane, ...] = (Lane(),)
    tenant_capacity: int | None = None
    ladder: tuple[Rung, ...] = (Rung(variant=""),)
    window_s: float = 0.5
    calm_s: float = 6.0
    settle_s: float = 10.0
    min_instances: int | None = None
    max_instances: int | None = None
    idle_s: float = 60.0
    speeds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        names = [lane.name for lane in self.lanes]
        _require(bool(names) and len(set(names)) == len(names), "Lanes need names of their own.", "Rename one of them.")
        kept = sum(lane.min_share for lane in self.lanes)
        _require(kept < 1, f"The lanes' minimum shares add up to {kept:g}.", "Let them add up to less than 1.")
        _require(bool(self.ladder), "The ladder has no variant.", "Name at least one.")
        for lane in self.lanes:
            _require(
                lane.accuracy_floor <= self.ladder[0].accuracy,
                f"Lane {lane.name!r} wants accuracy {lane.accuracy_floor:g}; the first variant has "
                f"{self.ladder[0].accuracy:g}.",
                "Lower the floor, or serve a more accurate bundle.",
            )
        least, most = self.scale
        _require(
            least <= self.instances <= most,
            f"{self.instances} instances are not between {least} and {most}.",
            "Start with a number between min_instances and max_instances.",
        )
        _require(
            not self.speeds or len(self.speeds) == most,
            f"{len(self.speeds)} speeds are given for {most} instances.",
            "Give one for each instance, or none.",
        )

    @property
    def scale(self) -> tuple[int, int]:
        """The least and the most instances."""
        least = self.instances if self.min_instances is None else self.min_instances
        return least, self.instances if self.max_instances is None else self.max_instances

    @property
    def lane_numbers(self) -> dict[str, int]:
        """The place of each lane in `lanes` by its name; "" is the first."""
        return {"": 0, **{lane.name: number for number, lane in enumerate(self.lanes)}}
