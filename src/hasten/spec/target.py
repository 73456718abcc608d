"""Where and how a model runs: engine, device, precision, threads."""

from __future__ import annotations

from typing import Literal

from hasten.spec.values import Value

__all__ = ["Precision", "Target"]

Precision = Literal["f32", "f16", "bf16", "int8"]


class Target(Value, frozen=True):
    """One way to run a model.

    `threads` 0 leaves the number to the engine. `pin` keeps each thread on a core of its own: left to chance, a
    scheduler may run two spinning threads on one core for minutes, and the same model takes twice as long.
    `options` are the engine's own, typed.
    """

    engine: str
    device: str = "CPU"
    precision: Precision = "f32"
    threads: int = 0
    pin: bool = True
    options: dict[str, str | int | bool] = {}

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads != 1 else ''}" if self.threads else "default threads"
        return f"{self.engine} on {self.device}, {self.precision}, {threads}"
