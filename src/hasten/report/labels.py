"""Where the names of points go in a plot, so that no two overlap.

A greedy search over places around each point, nearest first; names come in order of importance, and one that fits
nowhere is left out (the table under the plot has it). Pure geometry in pixels; `hasten.report.plots` calls it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Box", "Label", "place", "text_width"]

# Unit vectors around a point, in order of preference: right, left, above, below, then the corners.
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
DISTANCES = (11.0, 20.0, 32.0, 48.0, 66.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A rectangle in pixels, y upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two share any area."""
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )

    def inside(self, frame: Box) -> bool:
        """Whether this lies within `frame`."""
        return (
            frame.left <= self.left
            and self.right <= frame.right
            and frame.bottom <= self.bottom
            and self.top <= frame.top
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """A placed name: its anchor, how it is aligned to it, and whether it is far enough to need a leader line."""

    x: float
    y: float
    align: str
    far: bool
    box: Box


def text_width(text: str, size: float) -> float:
    """Estimate the width of `text` in pixels, a little generously, since the reader's font is unknown."""
    return size * sum(1.0 if unicodedata.east_asian_width(c) in "WF" else 0.56 for c in text)


def place(
    points: Sequence[tuple[float, float]],
    widths: Sequence[float],
    *,
    height: float,
    frame: Box,
    taken: Sequence[Box],
    avoid: Sequence[Box],
) -> list[Label | None]:
    """Place one name at each point, in the order given.

    Names never touch `taken` nor each other; they keep off `avoid` (error bars) where there is another place.
    """
    occupied, placed = list(taken), list[Label | None]()
    for point, width in zip(points, widths, strict=True):
        choices = [label for label in _around(point, width, height) if label.box.inside(frame)]
        free = [label for label in choices if not any(label.box.overlaps(box) for box in occupied)]
        clear = (label for label in free if not any(label.box.overlaps(box) for box in avoid))
        chosen = next(clear, next(iter(free), None))
        if chosen is not None:
            occupied.append(chosen.box)
        placed.append(chosen)
    return placed


def _around(point: tuple[float, float], width: float, height: float) -> Iterator[Label]:
    for distance in DISTANCES:
        for dx, dy in DIRECTIONS:
            x, y = point[0] + dx * distance, point[1] + dy * (distance + height / 3)
            left = x - width * (0.5 - dx / 2)
            box = Box(left=left, right=left + width, bottom=y - height / 2, top=y + height / 2)
            align = ("right", "center", "left")[dx + 1]
            yield Label(x=x, y=y, align=align, far=distance > DISTANCES[1], box=box)
