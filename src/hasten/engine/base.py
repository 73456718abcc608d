"""What an engine is: probe, load, run, close. The extension point `hasten.engine`.

An engine never decides; it says what it can do (`probe`), loads a model file for a target, and reports the precision
that it really uses, read back from the runtime. Engines run inside a worker process (`hasten.engine.worker`); whoever
wants isolation uses `hasten.engine.isolate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from hasten.errors import EngineLoadError
from hasten.registry import Entry, Registry
from hasten.spec.profile import Observation
from hasten.spec.signature import Signature
from hasten.spec.target import Format, Precision, Target
from hasten.spec.values import Value

__all__ = [
    "Absent",
    "Device",
    "Engine",
    "Hardware",
    "Probe",
    "Profiling",
    "Session",
    "Tensors",
    "engines",
    "reference_engine",
    "refuse_knobs",
    "why_unprofiled",
]

Tensors = Mapping[str, np.ndarray[Any, Any]]
Hardware = Literal["CPU", "GPU", "TPU", "NPU", "FPGA", "ASIC", "edge"]
# How far hasten's own checks have gone: the contract suite runs on it in CI; the suite has run the same code path on
# another device; the code is written against the real library and no such hardware was at hand.
Support = Literal["runs here", "contract-tested", "not run on hardware"]


class Device(Value, frozen=True):
    """A device that an engine reaches. `precisions` are those that it can compute in on this machine."""

    name: str
    hardware: Hardware
    detail: str
    precisions: tuple[Precision, ...]
    support: Support = "runs here"


class Absent(Value, frozen=True):
    """A device that the engine could drive and did not find here: why, and what to type."""

    name: str
    hardware: Hardware
    reason: str
    remedy: str = ""
    support: Support = "not run on hardware"


class Probe(Value, frozen=True):
    """What an engine found on this machine. With no devices, `reason` and `remedy` say why."""

    engine: str
    version: str | None = None
    devices: tuple[Device, ...] = ()
    absent: tuple[Absent, ...] = ()
    reason: str | None = None
    remedy: str | None = None

    def device(self, name: str) -> Device | None:
        """Return the device called `name`, if it was found."""
        return next((device for device in self.devices if device.name == name), None)


class Session(Protocol):
    """A loaded model. `Target.runtime.instances` callers may run it at the same time; close it when done.

    A session whose caller does a share of the work beside pinned threads names the core that is left for it in an
    attribute `caller_core`; whoever owns the calling thread keeps it there (`hasten.engine.worker`).
    """

    @property
    def signature(self) -> Signature:
        """Inputs and outputs as the engine sees them."""
        ...

    @property
    def precision(self) -> Precision:
        """The precision that the runtime really uses for most of its arithmetic, read back from it.

        Reading back may cost time and memory, so it happens when it is first asked for.
        """
        ...

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        """Run one batch; all outputs by name. Raises `EngineRunError`."""
        ...

    def close(self) -> None:
        """Give back memory and threads. Safe to call twice."""
        ...


@runtime_checkable
class WritesInto(Protocol):
    """What a session offers beside `Session` where its runtime can write outputs to memory that it is given."""

    def run_into(self, inputs: Tensors, places: Mapping[str, np.ndarray[Any, Any]]) -> bool:
        """Run one batch and write all outputs to `places`: contiguous arrays by name, of the types and shapes that
        outputs had for inputs of these shapes before. Returns False where that did not succeed, whatever the reason;
        what is in `places` then means nothing.
        """
        ...


class Engine(Protocol):
    """A runtime that executes models.

    `formats` are the kinds of model file that it loads; `honours` are the fields of `hasten.spec.target.Runtime` that
    it obeys. `load` refuses any other knob that is turned (`refuse_knobs` does that).
    """

    name: str
    formats: frozenset[Format]
    honours: frozenset[str]

    def probe(self) -> Probe:
        """Look at this machine. Never raises: what is missing is a reason."""
        ...

    def load(self, model: Path, target: Target) -> Session:
        """Load a model file. Raises `EngineLoadError` with the engine's own words, shortened."""
        ...


@runtime_checkable
class Profiling(Protocol):
    """What an engine offers beside `Engine` where its runtime times operators.

    An engine whose runtime does not may say so in a sentence, `unprofiled`, and what to do instead.
    """

    def profile(self, model: Path, target: Target, samples: Sequence[Tensors], *, warmup: int) -> Observation:
        """Load the model afresh with the runtime's profiler on, run the first sample `warmup` times, then each sample.

        What was warmed up on is not in the result. Raises `EngineLoadError` or `EngineRunError`.
        """
        ...


def why_unprofiled(engine: Engine) -> str | None:
    """Why `engine` gives no times of its operators, in words; None where it does."""
    if isinstance(engine, Profiling):
        return None
    return str(getattr(engine, "unprofiled", f"The engine {engine.name} offers no times of its operators."))


_REFERENCE: dict[Format, str] = {
    "onnx": "onnxruntime",
    "tflite": "litert",
    "openvino": "openvino",
    "torch": "torch",
}


def reference_engine(format_: Format) -> str:
    """The engine that most teams run a file of this format on today: what every speedup is measured against."""
    return _REFERENCE[format_]


def refuse_knobs(engine: Engine, target: Target) -> None:
    """Raise `EngineLoadError` where `target` turns a runtime knob that `engine` does not obey."""
    ignored = sorted(target.runtime.turned() - engine.honours)
    if ignored:
        raise EngineLoadError(
            f"{engine.name} has no runtime knob {ignored[0]!r}.",
            remedy=f"It obeys: {', '.join(sorted(engine.honours)) or 'none'}.",
        )


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
        Entry(name="litert", target="hasten.engine.litert:LiteRt", requires="ai_edge_litert", extra="litert"),
        Entry(name="torch", target="hasten.engine.torch:Torch", requires="torch", extra="torch"),
        # Shipped for tests of whatever stands on engines; never offered as a choice.
        Entry(name="fake", target="hasten.testing.fake_engine:FakeEngine", hidden=True),
    ],
)
