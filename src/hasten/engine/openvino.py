"""OpenVINO: bf16, f16 and int8 kernels on CPUs; Intel GPUs and NPUs where there are any; AUTO and HETERO over these.

The precision hint is always pinned: left alone, OpenVINO silently runs bf16 on processors that have it, and what looks
like a faster engine is a change of precision. After compiling, the hint is read back, and whoever asks for the
precision gets it from the operators of the executed graph.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from hasten.engine.base import Absent, Device, Hardware, Probe, Tensors, refuse_knobs
from hasten.engine.denormals import can_flush, denormals
from hasten.engine.fit import Fit
from hasten.engine.openvino_branches import branching, may_branch, turn_weights
from hasten.engine.openvino_cascade import Cascade, add_margin, takes_rows
from hasten.engine.openvino_fixed import Fixed, Lengths, OneRow, at_lengths, at_one_row
from hasten.engine.openvino_profile import means_without, merged, operators_of, read_counters
from hasten.engine.openvino_request import Feed, Request
from hasten.engine.openvino_values import from_runtime, spec_of, to_runtime
from hasten.engine.pool import Pool
from hasten.errors import EngineLoadError, EngineRunError
from hasten.spec.profile import Observation
from hasten.spec.signature import Signature
from hasten.spec.target import Format, Precision, Target

__all__ = ["OpenVino", "OpenVinoSession"]

# int8 and int4 graphs keep their unquantized operators in f32, so that these words mean one thing on every engine.
_HINTS: dict[Precision, str] = {"f32": "f32", "f16": "f16", "bf16": "bf16", "int8": "f32", "int4": "f32"}
_RUNTIME_PRECISIONS: dict[str, Precision] = {
    "f32": "f32", "f16": "f16", "bf16": "bf16", "i8": "int8", "u8": "int8", "i4": "int4", "u4": "int4",
}  # fmt: skip
# Operators that do the arithmetic; data movement says nothing about precision.
_ARITHMETIC = {"Convolution", "GroupConvolution", "MatMul", "FullyConnected", "Deconvolution", "RNNSeq", "MHA"}

# Devices of the runtime beside the CPU: class, what it is, what to do to get it.
_OTHERS: dict[str, tuple[Hardware, str, str]] = {
    "GPU": (
        "GPU",
        "an Intel GPU",
        "On a machine with an Intel GPU, install its compute driver: apt-get install intel-opencl-icd.",
    ),
    "NPU": ("NPU", "the NPU of Intel Core Ultra", "On a machine with an Intel NPU, install Intel's linux-npu-driver."),
}
# Devices that spread a model over others. They keep no settings themselves but hand them on.
_VIRTUAL = ("AUTO", "HETERO", "MULTI")


class OpenVino:
    """The engine. Callers of several instances run in streams of one compiled model, which share its weights."""

    name = "openvino"
    formats: frozenset[Format] = frozenset({"onnx", "tflite", "openvino"})
    honours: frozenset[str] = frozenset(
        {"instances", "batch", "flush_denormals", "cascade_below", "lengths", "single_row"}
    )

    def probe(self) -> Probe:
        """Ask the runtime for its devices and what each can compute in."""
        import openvino as ov

        core: Any = ov.Core()
        names: list[str] = list(core.available_devices)
        missing = [name for name in _OTHERS if not any(found.split(".")[0] == name for found in names)]
        return Probe(
            engine=self.name,
            version=importlib.metadata.version("openvino"),
            devices=tuple(_device(core, name) for name in names),
            absent=tuple(_absent(name) for name in missing),
        )

    def load(self, model: Path, target: Target) -> OpenVinoSession:
        """Read and compile an ONNX file, TFLite file or OpenVINO IR with the precision pinned.

        `target.threads` are the threads of one instance. Devices are those of `probe`, "AUTO", or lists such as
        "HETERO:GPU,CPU".
        """
        import openvino as ov

        refuse_knobs(self, target)
        if target.runtime.flush_denormals and not can_flush():
            raise EngineLoadError(
                "Subnormal numbers cannot be flushed on this system.", remedy="Leave flush_denormals off."
            )
        core: Any = ov.Core()
        kind = target.device.partition(":")[0].partition(".")[0]
        try:
            # Compiling switches this thread's mode for subnormal numbers and leaves it so.
            with denormals(target.runtime.flush_denormals):
                cascades = _cascades(target)
                compiled = _compiled(core, model, target, margin=cascades)
                full, by_row = _full(core, model, target) if cascades else (None, False)
                fixed = _fixed(core, model, target, margin=cascades)
        except EngineLoadError:
            raise
        except Exception as error:
            hint = _OTHERS[kind][2] if kind in _OTHERS else f"Check the file with: hasten inspect {model.name}"
            raise EngineLoadError(f"openvino refused {model.name}: {_short(error)}", remedy=hint) from error
        _check_hint(compiled, model, target)
        return OpenVinoSession(compiled, target, full, fixed, by_row=by_row)

    def profile(self, model: Path, target: Target, samples: Sequence[Tensors], *, warmup: int) -> Observation:
        """Run with the runtime's performance counters on; see `hasten.engine.openvino_profile`."""
        session = self.load(model, msgspec.structs.replace(target, options={**target.options, "PERF_COUNT": True}))
        try:
            for _ in range(warmup):
                session.run(samples[0])
            before = session.counters() if warmup else {}
            wall = [_timed_us(session, sample) for sample in samples]
            means = means_without(session.counters(), before, len(samples), warmup)
            return Observation(operators=operators_of(session.executed(), means), wall_us=tuple(wall), averaged=True)
        finally:
            session.close()


class OpenVinoSession:
    """A compiled model with an infer request for each instance; `full` is the f32 graph of a cascade, for one row where
    it is `by_row`, and `fixed` holds graphs for single rows.
    """

    def __init__(
        self, compiled: Any, target: Target, full: Any = None, fixed: Fixed | None = None, *, by_row: bool = False
    ) -> None:
        self._compiled: Any = compiled
        self._target = target
        self._signature = Signature(
            inputs=tuple(spec_of(port) for port in compiled.inputs),
            # The last output of a cascade is the margin.
            outputs=tuple(spec_of(port) for port in (compiled.outputs if full is None else compiled.outputs[:-1])),
        )
        self._fit = Fit("openvino", self._signature)
        count = target.runtime.instances
        self._pool = Pool(Request(compiled) for _ in range(count))
        limit = target.runtime.cascade_below
        self._cascade = (
            None if full is None else Cascade(full, self._signature.outputs, limit, by_row=by_row, instances=count)
        )
        self._fixed = fixed
        self._precision: Precision | None = None
        self._runs = 0

    @property
    def signature(self) -> Signature:
        """Inputs and outputs as the runtime sees them."""
        return self._signature

    @property
    def precision(self) -> Precision:
        """What most arithmetic operators of the executed graph run in."""
        if self._precision is None:
            if self._compiled is None:
                raise EngineRunError("The session is closed.", remedy="Load the model again.")
            self._precision = _precision_used(self._compiled, _HINTS[self._target.precision])
        return self._precision

    def run(self, inputs: Tensors) -> dict[str, np.ndarray[Any, Any]]:
        """Run one batch. Raises `EngineRunError`."""
        # The runtime itself would take an old value for a missing input and convert a wrong type silently.
        self._fit.check(inputs)
        feed = {index: to_runtime(inputs[spec.name], spec) for index, spec in enumerate(self._signature.inputs)}
        try:
            with self._flushing():
                answers = None
                if self._fixed is not None:
                    answers = self._fixed.infer(feed, lambda request, given: self._settled(request, given, feed))
                if answers is None:
                    with self._pool.take() as request:
                        self._runs += 1
                        answers = self._settled(request, feed, feed)
            return answers
        except EngineRunError:
            raise
        except Exception as error:
            raise EngineRunError(f"openvino failed: {_short(error)}") from error

    def counters(self) -> dict[str, float]:
        """Mean microseconds of each operator since the model was compiled, with the option PERF_COUNT."""
        with self._pool.take() as request:
            own = read_counters(request)
        if self._fixed is None:
            return own
        return merged([(runs, means) for runs, means in (self._fixed.counters(), (self._runs, own)) if runs])[1]

    def executed(self) -> Any:
        """The graph that is really executed, the commonest of those of fixed shape."""
        graph = self._compiled if self._fixed is None else self._fixed.commonest()
        return graph.get_runtime_model()

    def close(self) -> None:
        """Drop the requests and the compiled model."""
        self._pool.close()
        self._compiled = None
        if self._cascade is not None:
            self._cascade.close()
            self._cascade = None
        if self._fixed is not None:
            self._fixed.close()

    def _settled(self, request: Request, given: Feed, feed: Feed) -> dict[str, np.ndarray[Any, Any]]:
        """Answers by name to what the request is `given`, close calls of `feed` computed again."""
        results = request.infer(given)
        # The margin of a cascade comes after the answers.
        answers = {
            spec.name: from_runtime(found, spec) for spec, found in zip(self._signature.outputs, results, strict=False)
        }
        if self._cascade is not None:
            self._cascade.settle(feed, answers, results[-1])
        return answers

    def _flushing(self) -> AbstractContextManager[None]:
        return denormals(True) if self._target.runtime.flush_denormals else nullcontext()


def _timed_us(session: OpenVinoSession, sample: Tensors) -> float:
    started = time.perf_counter_ns()
    session.run(sample)
    return (time.perf_counter_ns() - started) / 1e3


def _settings(target: Target, present: list[str]) -> dict[str, Any]:
    """The target in OpenVINO's own words. `present` are the devices among which AUTO chooses."""
    own = _device_settings(target)
    kind, _, rest = target.device.partition(":")
    if kind not in _VIRTUAL:
        return {"PERFORMANCE_HINT": "LATENCY", **own, **target.options}
    # A device that spreads a model does not know its members' settings; they are handed on under their names.
    hint = {"INFERENCE_PRECISION_HINT": own["INFERENCE_PRECISION_HINT"]}
    members = [name.strip() for name in rest.split(",") if name.strip() and not name.startswith("-")]
    handed = {name: own if name == "CPU" else hint for name in members or present}
    return {"DEVICE_PROPERTIES": handed, **target.options}


def _device_settings(target: Target) -> dict[str, Any]:
    knobs = target.runtime
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _HINTS[target.precision]}
    if knobs.instances > 1:
        settings["NUM_STREAMS"] = knobs.instances
    if target.device.partition(":")[0] not in ("CPU", *_VIRTUAL):
        return settings
    settings["ENABLE_CPU_PINNING"] = target.pin
    if target.threads:
        settings["INFERENCE_NUM_THREADS"] = target.threads * knobs.instances
    if knobs.flush_denormals:
        settings["CPU_DENORMALS_OPTIMIZATION"] = True
    return settings


def _compiled(core: Any, model: Path, target: Target, *, margin: bool = False) -> Any:
    network = _network(core, model, target, margin=margin)
    return core.compile_model(network, target.device, _settings(target, list(core.available_devices)))


def _full(core: Any, model: Path, target: Target) -> tuple[Any, bool]:
    """The f32 graph of a cascade, and whether it takes single rows: close calls are few, and as many as there are rows
    in a batch at the most; a graph for each number of them would be compiled when it is met.
    """
    exact = msgspec.structs.replace(target, precision="f32")
    network = _network(core, model, exact, margin=False)
    by_row = takes_rows(network)
    settings = _settings(exact, list(core.available_devices))
    return core.compile_model(at_one_row(network) if by_row else network, target.device, settings), by_row


def _fixed(core: Any, model: Path, target: Target, *, margin: bool) -> Fixed | None:
    """Graphs for single rows, where they are asked for; those of lengths have one row anyway."""
    knobs = target.runtime
    if not (knobs.lengths or knobs.single_row):
        return None
    settings = _settings(target, list(core.available_devices))
    network = _network(core, model, target, margin=margin)

    def compiled(copy: Any) -> Any:
        return core.compile_model(copy, target.device, settings)

    if knobs.lengths:
        lengths = sorted(set(knobs.lengths))
        # Other devices run branches on the processor; and counters do not see into them.
        shares = target.device == "CPU" and "PERF_COUNT" not in target.options and may_branch(network)
        if shares:
            turn_weights(network)
        mask, copies = at_lengths(network, lengths)
        graphs = [branching(copies, lengths)] if shares else copies
        return Lengths(lengths, mask, [compiled(graph) for graph in graphs], knobs.instances)
    return OneRow([compiled(at_one_row(network))], knobs.instances)


def _network(core: Any, model: Path, target: Target, *, margin: bool) -> Any:
    network = core.read_model(str(model))
    _fix_batch(network, target.runtime.batch)
    if margin:
        add_margin(network)
    return network


def _cascades(target: Target) -> bool:
    """Whether rows are to be computed again; where all are in f32 in the first place there is nothing to do.

    Raises `EngineLoadError` for a model whose weights were made narrower: it has no f32 to fall back on.
    """
    if target.precision in ("int8", "int4") and target.runtime.cascade_below:
        raise EngineLoadError(
            f"A model in {target.precision} cannot compute rows again in f32.",
            remedy="Leave cascade_below at 0, or choose bf16 or f16.",
        )
    return target.precision != "f32" and target.runtime.cascade_below > 0


def _fix_batch(network: Any, batch: int) -> None:
    """Give every input's open leading axis the size. Raises `EngineLoadError` where one is fixed to another."""
    shapes: dict[Any, Any] = {}
    for port in network.inputs if batch else ():
        shape = port.get_partial_shape()
        if not shape.rank.is_static or len(shape) == 0 or (shape[0].is_static and shape[0].get_length() != batch):
            raise EngineLoadError(
                f"The input {port.get_any_name()!r} of shape {shape} cannot be held to batches of {batch}.",
                remedy="Leave batch at 0, or choose the size that the model was exported with.",
            )
        shape[0] = batch
        shapes[port] = shape
    if shapes:
        network.reshape(shapes)


def _check_hint(compiled: Any, model: Path, target: Target) -> None:
    """Read the precision hint back: a device that does not take it falls to another without a word."""
    if target.device.partition(":")[0] in _VIRTUAL:
        return
    got = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
    if got != _HINTS[target.precision]:
        raise EngineLoadError(
            f"openvino runs {model.name} in {got} although {target.precision} was asked for.",
            remedy="This processor or this model does not take that precision; choose another.",
        )


def _device(core: Any, name: str) -> Device:
    capabilities = set(core.get_property(name, "OPTIMIZATION_CAPABILITIES"))
    known: list[tuple[str, Precision]] = [("FP32", "f32"), ("FP16", "f16"), ("BF16", "bf16"), ("INT8", "int8")]
    kind = name.split(".")[0]
    return Device(
        name=name,
        hardware="CPU" if kind == "CPU" else _OTHERS[kind][0] if kind in _OTHERS else "ASIC",
        detail=str(core.get_property(name, "FULL_DEVICE_NAME")).strip(),
        precisions=tuple(precision for capability, precision in known if capability in capabilities),
        support="runs here" if kind == "CPU" else "not run on hardware",
    )


def _absent(name: str) -> Absent:
    hardware, what, remedy = _OTHERS[name]
    return Absent(name=name, hardware=hardware, reason=f"OpenVINO finds no {name}, {what}.", remedy=remedy)


def _precision_used(compiled: Any, hint: str) -> Precision:
    """Count the arithmetic operators of the executed graph by runtime precision; the commonest is the answer.

    Where there is none, or the device does not describe its graph, the hint that it accepted is the answer.
    """
    counts: Counter[Precision] = Counter()
    for op in compiled.get_runtime_model().get_ordered_ops():
        info = op.get_rt_info()
        if "layerType" not in info or str(info["layerType"].astype(str)) not in _ARITHMETIC:
            continue
        precision = _RUNTIME_PRECISIONS.get(str(info["runtimePrecision"].astype(str)))
        if precision:
            counts[precision] += 1
    return counts.most_common(1)[0][0] if counts else _RUNTIME_PRECISIONS.get(hint, "f32")


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return " ".join(useful or lines)[:400]
