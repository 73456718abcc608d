"""Whether the request path runs compiled here, or as plain Python from the same source (docs/decisions/0024)."""

from __future__ import annotations

__all__ = ["is_compiled"]


def is_compiled() -> bool:
    """This module is compiled where the others are: all are in one library (native.py)."""
    return not __file__.endswith(".py")
