"""What serving tells whoever observes it. Plain values; the listener decides what becomes of them."""

from __future__ import annotations

from hasten.spec.values import Value

__all__ = ["Served"]


class Served(Value, frozen=True):
    """One answered request: which variant, how large its batch was, and seconds in the queue and in the engine."""

    model: str
    variant: str
    batch: int
    queue_s: float
    engine_s: float
