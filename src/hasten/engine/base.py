"""What an engine is: probe, load, run, close. The extension point `hasten.engine`.

An engine never decides; it says what it can do (`probe`), loads a model file for a target, and reports the precision
that it really uses, read back from the runtime. Engines run inside a worker process (`hasten.engine.worker`); whoever
wants isolation uses `hasten.engine.isolate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hasten.registry import Entry, Registry
from hasten.spec.signature import Signature
from hasten.spec.target import Precision, Target
from hasten.spec.values import Value

__all__ = ["Device", "Engine", "Probe", "Session", "Tensors", "engines"]

Tensors = Mapping[str, np.ndarray[Any, Any]]


class Device(Value, frozen=True):
    """A device that an engine reaches. `precisions` maps each precision that can run to why it can be trusted to."""

    name: str
    hardware: str
    detail: str
    precisions: tuple[Precision, ...]


class Probe(Value, frozen=True):
    """What an engine found on this machine. With no devices, `reason` and `remedy` say why."""

    engine: str
    version: str | None = None
    devices: tuple[Device, ...] = ()
    reason: str | None = None
    remedy: str | None = None

    def device(self, name: str) -> Device | None:
        """Return the device called `name`, if it was found."""
        return next((device for device in self.devices if device.name == name), None)


class Session(Protocol):
    """A loaded model. Not thread-safe unless the engine says so; close it, or use it in a `with`."""

    @property
    def signature(self) -> Signature:
        """Inputs and outputs as the engine sees them."""
        ...

    @property
    def precision(self) -> Precision:
        """The precision that the runtime really uses, read back after loading."""
        ...

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        """Run one batch; all outputs by name. Raises `EngineRunError`."""
        ...

    def close(self) -> None:
        """Give back memory and threads. Safe to call twice."""
        ...


class Engine(Protocol):
    """A runtime that executes models."""

    name: str

    def probe(self) -> Probe:
        """Look at this machine. Never raises: what is missing is a reason."""
        ...

    def load(self, model: Path, target: Target) -> Session:
        """Load a model file. Raises `EngineLoadError` with the engine's own words, shortened."""
        ...


engines: Registry[Engine] = Registry(
    "engine",
    [
        Entry(
            name="onnxruntime",
            target="hasten.engine.onnxruntime:OnnxRuntime",
            requires="onnxruntime",
        ),
        Entry(
            name="openvino",
            target="hasten.engine.openvino:OpenVino",
            requires="openvino",
            extra="openvino",
        ),
        # Shipped for tests of whatever stands on engines; never offered as a choice.
        Entry(name="fake", target="hasten.testing.fake_engine:FakeEngine", hidden=True),
    ],
)
