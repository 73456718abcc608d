"""An engine that misbehaves on demand: it answers as ONNX Runtime does, until its options tell it to fail.

It is registered as "fake", so that worker processes find it, and hidden, so that no search offers it. Options of the
target: `fail` = "load" or "run" raises an engine's error, `die` = "load" or "run" kills the process, `hang` = "run"
never answers.
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
            os.kill(os.getpid(), signal.SIGSEGV)
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
        if self._options.get("fail") == "run":
            raise EngineRunError("The fake engine was told to fail.")
        if self._options.get("die") == "run":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._options.get("hang") == "run":
            threading.Event().wait()
        return self._inner.run(inputs)

    def close(self) -> None:
        self._inner.close()
