"""ONNX Runtime: the reference engine on CPUs, and the way to other hardware through its execution providers.

Its defaults are what most teams run today, so `Target(engine="onnxruntime")` with nothing else set is the
reference that every speedup is measured against. A provider that falls away, as this runtime lets them do with no
more than a warning, is an error here.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hasten.engine.base import Absent, Device, Probe, Tensors, refuse_knobs
from hasten.engine.denormals import denormals
from hasten.engine.fit import Fit
from hasten.engine.host import environment, staying_on
from hasten.engine.onnxruntime_options import caller_core, provider_options, provider_row, session_options
from hasten.engine.onnxruntime_precision import read_back
from hasten.engine.onnxruntime_profile import operators_of, tensors_made
from hasten.engine.onnxruntime_providers import PROVIDERS, Provider, probe_provider
from hasten.engine.onnxruntime_values import Binding, from_runtime, run_into, run_typed, spec_of, to_runtime
from hasten.engine.pool import Pool
from hasten.errors import EngineLoadError, EngineRunError
from hasten.spec.profile import Observation
from hasten.spec.signature import Signature
from hasten.spec.target import RUNTIME_KNOBS, Format, Precision, Target

__all__ = ["OnnxRuntime", "OnnxRuntimeSession"]


class OnnxRuntime:
    """The engine. It obeys every runtime knob.

    `instances` are sessions, each with threads and packed weights of its own; with `share_weights` they are callers of
    one session whose threads number as many as theirs together.
    """

    name = "onnxruntime"
    formats: frozenset[Format] = frozenset({"onnx"})
    honours: frozenset[str] = frozenset(RUNTIME_KNOBS) - {"cascade_below", "lengths", "single_row"}

    def probe(self) -> Probe:
        """The CPU, and each provider that is in this build and opens a tiny session; the others with the reason."""
        import onnxruntime as ort

        found = [probe_provider(row, environment().processor) for row in PROVIDERS]
        return Probe(
            engine=self.name,
            version=ort.__version__,
            devices=tuple(item for item in found if isinstance(item, Device)),
            absent=tuple(item for item in found if isinstance(item, Absent)),
        )

    def load(self, model: Path, target: Target) -> OnnxRuntimeSession:
        """Load an ONNX file. `target.threads` are the threads of one instance; 0 keeps the runtime's default."""
        refuse_knobs(self, target)
        row = provider_row(target)
        count = 1 if target.runtime.share_weights else target.runtime.instances
        with denormals(target.runtime.flush_denormals):
            return OnnxRuntimeSession(model, target, row, [_open(model, target, row) for _ in range(count)])

    def profile(self, model: Path, target: Target, samples: Sequence[Tensors], *, warmup: int) -> Observation:
        """Run with the runtime's own profiler on; see `hasten.engine.onnxruntime_profile`."""
        refuse_knobs(self, target)
        row = provider_row(target)
        with tempfile.TemporaryDirectory(prefix="hasten-trace-") as folder:
            with denormals(target.runtime.flush_denormals):
                raw = _open(model, target, row, trace=Path(folder) / "trace")
            session = OnnxRuntimeSession(model, target, row, [raw])
            try:
                with staying_on(None if session.caller_core is None else {session.caller_core}):
                    for _ in range(warmup):
                        session.run(samples[0])
                    wall = [_timed_us(session, sample) for sample in samples]
                events = msgspec.json.decode(Path(raw.end_profiling()).read_bytes())
            finally:
                session.close()
        made = tensors_made(str(model), msgspec.json.encode(target))
        return Observation(operators=operators_of(events, made, skip=warmup, runs=len(samples)), wall_us=tuple(wall))


class OnnxRuntimeSession:
    """A loaded model: sessions of the runtime, shared out among callers."""

    def __init__(self, model: Path, target: Target, row: Provider, sessions: list[Any]) -> None:
        first = sessions[0]
        self._signature = Signature(
            inputs=tuple(spec_of(node) for node in first.get_inputs()),
            outputs=tuple(spec_of(node) for node in first.get_outputs()),
        )
        self._fit = Fit("onnxruntime", self._signature)
        self._names = [spec.name for spec in self._signature.outputs]
        self._model, self._target, self._row = model, target, row
        # Raw sessions are kept apart from the pool so that what they obey can be read back.
        self._sessions = sessions
        self._typed = any(spec.dtype == "BF16" for spec in (*self._signature.inputs, *self._signature.outputs))
        knobs = target.runtime
        self._check_batch()
        if knobs.io_binding:
            self._check_bindable()
        # Callers of one session each need a place of their own; callers of several take one session each.
        places = sessions * knobs.instances if knobs.share_weights else sessions
        self._pool: Pool[Any] = Pool(
            Binding(session, self._signature) if knobs.io_binding else session for session in places
        )
        self._precision: Precision | None = None
        self.caller_core = caller_core(target)

    @property
    def signature(self) -> Signature:
        """Inputs and outputs as the runtime sees them."""
        return self._signature

    @property
    def precision(self) -> Precision:
        """What most arithmetic of the optimized graph runs in, read from the graph once.

        A provider that compiles has no such graph; it was told a precision at load and accepted it.
        """
        if self._precision is None:
            options = provider_options(self._row, self._target)
            self._precision = (
                self._target.precision
                if self._row.compiles
                else read_back(
                    self._model, session_options(self._model, self._target, self._row), (self._row.name, options)
                )
            )
        return self._precision

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        """Run one batch. Raises `EngineRunError`."""
        self._fit.check(inputs)
        with self._pool.take() as place:
            if not self._target.runtime.flush_denormals:
                values = self._values(place, inputs)
            else:
                with denormals(True):
                    values = self._values(place, inputs)
        return dict(zip(self._names, values, strict=True))

    def run_into(self, inputs: Tensors, places: Tensors) -> bool:
        """Run one batch and write its outputs to `places`; see `hasten.engine.base.WritesInto`."""
        flush = self._target.runtime.flush_denormals
        try:
            self._fit.check(inputs)
            with self._pool.take() as place, denormals(True) if flush else nullcontext():
                run_into(place.session if isinstance(place, Binding) else place, self._signature, inputs, places)
        except Exception:
            # `run` meets the same, and says what it is.
            return False
        return True

    def close(self) -> None:
        """Drop the sessions; the runtime frees their arenas with them."""
        self._pool.close()
        self._sessions = []

    def _values(self, place: Any, inputs: Tensors) -> list[np.ndarray[Any, Any]]:
        try:
            if isinstance(place, Binding):
                return place.run(inputs)
            if self._typed:
                return run_typed(place, self._signature, inputs)
            found = place.run(self._names, {name: to_runtime(array) for name, array in inputs.items()})
        except EngineRunError:
            raise
        except Exception as error:
            raise EngineRunError(f"onnxruntime failed: {_short(error)}") from error
        return [from_runtime(np.asarray(value)) for value in found]

    def _check_batch(self) -> None:
        """Read back that every input's leading axis got the size."""
        batch = self._target.runtime.batch
        for spec in self._signature.inputs if batch else ():
            if not spec.shape or spec.shape[0] != batch:
                raise EngineLoadError(
                    f"The input {spec} cannot be held to batches of {batch}.",
                    remedy="Leave batch at 0, or choose the size that the model was exported with.",
                )

    def _check_bindable(self) -> None:
        text = next((s for s in (*self._signature.inputs, *self._signature.outputs) if s.dtype == "BYTES"), None)
        if text:
            raise EngineLoadError(
                f"onnxruntime binds no buffers for strings, and {text.name!r} holds strings.",
                remedy="Leave io_binding off.",
            )


def _timed_us(session: OnnxRuntimeSession, sample: Tensors) -> float:
    started = time.perf_counter_ns()
    session.run(sample)
    return (time.perf_counter_ns() - started) / 1e3


def _open(model: Path, target: Target, row: Provider, trace: Path | None = None) -> Any:
    """One session on the provider and on no other, its profiler writing to `trace`. Raises `EngineLoadError`."""
    import onnxruntime as ort

    options = session_options(model, target, row)
    if trace is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(trace)
    try:
        session = ort.InferenceSession(
            str(model), options, providers=[(row.name, provider_options(row, target))], enable_fallback=False
        )
    except Exception as error:
        raise EngineLoadError(
            f"onnxruntime refused {model.name}: {_short(error)}",
            remedy="Check the file with: hasten inspect " + model.name,
        ) from error
    _refuse_fallback(session, row, model)
    return session


def _refuse_fallback(session: Any, row: Provider, model: Path) -> None:
    """Read back which provider was kept, and whether it got any of the model's operators."""
    if row.name not in session.get_providers():
        raise EngineLoadError(
            f"{row.name} fell away while {model.name} was loaded; only {', '.join(session.get_providers())} is left.",
            remedy=row.remedy,
        )
    if row.device != "CPU" and hasattr(session, "get_provider_graph_assignment_info"):
        parts = session.get_provider_graph_assignment_info()
        if parts and all(part.ep_name != row.name for part in parts):
            raise EngineLoadError(
                f"{row.name} takes none of the operators of {model.name}; all would run on the CPU.",
                remedy="Choose device CPU, or convert the model to operators and types that the device takes.",
            )


def _short(error: BaseException) -> str:
    """The runtime's own words on one line, without its error prefix."""
    text = " ".join(str(error).split())
    return text.removeprefix("[ONNXRuntimeError] : ")[:400]
