"""The circumstances of a measurement: processor, memory, operating system, versions."""

from __future__ import annotations

from hasten.spec.values import Value

__all__ = ["Environment"]


class Environment(Value, frozen=True):
    """One machine as a measurement saw it. `features` are the instruction sets that inference kernels care about."""

    processor: str
    architecture: str
    features: tuple[str, ...]
    cores_logical: int
    cores_physical: int
    memory_mb: int
    system: str
    python: str
    packages: dict[str, str]
    virtual: bool = False
