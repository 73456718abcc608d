"""An engine that misbehaves on demand: it answers as ONNX Runtime does, until its options tell it to fail.

It is registered as "fake", so that worker processes find it, and hidden, so that no search offers it. Options of the
target: `fail` = "load" or "run" raises an engine's error, `die` = "load" or "run" kills the process, `hang` = "load" or
"run" never answers. `poison` names what a NaN among the inputs does: "fail", "hang", "memory" (there is not enough),
"exit", or a signal ("SIGSEGV", "SIGABRT", ...) that ends the process.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np

from hasten.engine.base import Device, Probe, Tensors, refuse_knobs
from hasten.engine.onnxruntime import OnnxRuntime, OnnxRuntimeSession
from hasten.errors import EngineLoadError, EngineRunError
from hasten.spec.signature import Signature
from hasten.spec.target import Format, Precision, Target

__all__ = ["FakeEngine"]


class FakeEngine:
    """The engine."""

    name = "fake"
    formats: frozenset[Format] = frozenset({"onnx"})
    honours: frozenset[str] = frozenset()

    def probe(self) -> Probe:
        """One imaginary device."""
        device = Device(name="CPU", hardware="CPU", detail="imaginary", precisions=("f32",))
        return Probe(engine=self.name, version="1", devices=(device,))

    def load(self, model: Path, target: Target) -> _FakeSession:
        """Load with ONNX Runtime, or fail as the options say."""
        refuse_knobs(self, target)
        if target.device != "CPU":
            raise EngineLoadError(f"The fake engine has no device {target.device!r}.", remedy="Choose CPU.")
        if target.options.get("fail") == "load":
            raise EngineLoadError("The fake engine was told to refuse this model.")
        if target.options.get("die") == "load":
            _misbehave("SIGSEGV")
        if target.options.get("hang") == "load":
            _misbehave("hang")
        inner = OnnxRuntime().load(model, Target(engine="onnxruntime", threads=target.threads))
        return _FakeSession(inner, target)


class _FakeSession:
    def __init__(self, inner: OnnxRuntimeSession, target: Target) -> None:
        self._inner = inner
        self._options = target.options

    @property
    def signature(self) -> Signature:
        return self._inner.signature

    @property
    def precision(self) -> Precision:
        return self._inner.precision

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        for option, deed in (("fail", "fail"), ("die", "SIGSEGV"), ("hang", "hang")):
            if self._options.get(option) == "run":
                _misbehave(deed)
        if "poison" in self._options and any(np.isnan(array).any() for array in inputs.values()):
            _misbehave(str(self._options["poison"]))
        return self._inner.run(inputs)

    def close(self) -> None:
        self._inner.close()


def _misbehave(deed: str) -> None:
    match deed:
        case "fail":
            raise EngineRunError("The fake engine was told to fail.")
        case "hang":
            threading.Event().wait()
        case "memory":
            raise EngineRunError("The fake engine failed: std::bad_alloc")
        case "exit":
            os._exit(3)
        case _:
            os.kill(os.getpid(), signal.Signals[deed])
