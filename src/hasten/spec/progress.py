"""Progress: what long work tells whoever watches. The command line draws it; the library stays silent without a
listener.
"""

from __future__ import annotations

from collections.abc import Callable

from hasten.spec.values import Value

__all__ = ["Listener", "Progress", "ignore"]


class Progress(Value, frozen=True):
    """`done` of `total` units of `stage`; `note` is one finished thing worth a line of its own."""

    stage: str
    done: float = 0.0
    total: float = 0.0
    note: str | None = None


Listener = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """Listen to nothing."""
