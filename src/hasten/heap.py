"""The garbage collector, kept away from what lives already.

A full pass walks over every object that could be part of a cycle: 12 to 20 ms in a server that has just started, 13 to
95 in a process that has searched and simulated (docs/decisions/0036). Nothing else happens in that process meanwhile,
so that whoever is served or measured by it waits. What lives when a server is ready, or a load begins, mostly lives to
the end.
"""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["settle", "settled"]


def settle() -> None:
    """Free what is garbage, and leave all that lives to later calls of this alone. For processes of our own: what
    others keep in theirs might become garbage yet.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@contextmanager
def settled() -> Generator[None]:
    """`settle` for as long as the block lasts."""
    settle()
    try:
        yield
    finally:
        gc.unfreeze()
