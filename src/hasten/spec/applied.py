"""What a transform did to a model: how much it changed, what it left alone, and why. Part of the evidence."""

from __future__ import annotations

from hasten.spec.values import Value

__all__ = ["Applied", "Build", "LeftOut", "Skipped"]


class Skipped(Value, frozen=True):
    """A site (a node or a group of nodes) that a transform left alone, and the reason for people."""

    site: str
    reason: str


class Applied(Value, frozen=True):
    """One executed step of a recipe.

    `sites` counts the places it could have acted on; `error` is the relative L2 difference from the step's own input
    model over calibration samples, of the output where it is largest (None where nothing could be compared).
    `operators_before` and `operators_after` count operators by type. `notes` are sentences for people. `deterministic`
    False means that the same recipe may give other bytes; a note then says why.
    """

    transform: str
    sites: int = 0
    skipped: tuple[Skipped, ...] = ()
    operators_before: dict[str, int] = {}
    operators_after: dict[str, int] = {}
    error: float | None = None
    notes: tuple[str, ...] = ()
    deterministic: bool = True


class LeftOut(Value, frozen=True):
    """A technique that was wanted for a variant and is not in its recipe: it did not apply, failed or did not pay."""

    transform: str
    reason: str


class Build(Value, frozen=True):
    """How a variant's model came about: what each step of its recipe did, and which techniques were left out, why."""

    variant: str
    applied: tuple[Applied, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
