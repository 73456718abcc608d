"""Cut token sequences to a shorter length inside the graph: attention grows with its square, everything else with it.

The interface stays: a client sends what it sent before, and the first thing the graph does is to cut. So measuring and
serving cannot differ in how they cut.
"""

from __future__ import annotations

from typing import final

import numpy as np
import onnx
from onnx import helper

from hasten.data.dataset import Arrays, Samples
from hasten.model.base import Model
from hasten.model.onnx_file import OnnxModel, save_proto
from hasten.model.open import open_model
from hasten.spec.tensor import TensorSpec
from hasten.transform.base import Options, Task, Transform, TransformFailed
from hasten.transform.numerics import answers_of, compare
from hasten.transform.onnx_graph import add_constant, load
from hasten.transform.shrink import Slicer, follow, fresh, insert_before_use

__all__ = ["ReduceLength"]

_KEEPS = ("start", "end", "ends")
_LAST = np.iinfo(np.int64).max


@final
class ReduceLength(Transform):
    """Slice all token inputs to `length`. `keep` says which part stays: "start", "end", or "ends", half of each."""

    name = "reduce_length"
    promise = "approximate"
    defaults = {"length": 128, "keep": "start"}

    def requires(self, model: Model, options: Options) -> str | None:
        """Integer inputs [batch, sequence], a network that takes any length, and no output for each position."""
        assert isinstance(model, OnnxModel), "the base lets only the declared formats through"
        if options["keep"] not in _KEEPS:
            return f"the option keep is {options['keep']!r}; it must be one of {', '.join(_KEEPS)}."
        if int(options["length"]) < 1:
            return "the option length must be at least 1."
        if model.opset < 10:
            return f"cutting needs operator set 10, the model uses {model.opset} (raise_opset first)."
        problem = _interface_problem(model, options)
        if problem:
            return problem
        shorter = onnx.ModelProto()
        shorter.CopyFrom(model.proto)
        return _shorten(model, shorter, options)

    def apply(self, task: Task) -> None:
        """Cut, repair what has the old length written into it, and try the longest calibration sample."""
        model = task.model
        assert isinstance(model, OnnxModel), "the base lets only the declared formats through"
        specs, length = _token_inputs(model), int(task.options["length"])
        longest = _longest(task.calibration, specs[0].name)
        if longest is None or np.shape(longest[specs[0].name])[-1] <= length:
            raise TransformFailed(f"no calibration sample is longer than {length}: nothing would be cut.")
        proto = load(model)
        problem = _shorten(model, proto, task.options)
        if problem:
            raise TransformFailed(f"reduce_length does not apply: {problem}")
        save_proto(proto, task.out)
        before, after = (answers_of(item, _One(longest), lambda one: one) for item in (model, open_model(task.out)))
        _, problem = compare(before, after, self.promise)
        if problem:
            raise TransformFailed(f"reduce_length does not apply: {problem}")
        names = ", ".join(spec.name for spec in specs)
        task.notes.append(f"sequences are cut to {length} inside the graph ({task.options['keep']}): {names}.")


class _One:
    """A single sample, as samples."""

    def __init__(self, sample: Arrays) -> None:
        self._sample = sample

    def __len__(self) -> int:
        return 1

    def inputs(self, position: int, /) -> Arrays:
        return self._sample


def _token_inputs(model: Model) -> list[TensorSpec]:
    return [spec for spec in model.signature.inputs if spec.dtype in ("INT32", "INT64") and len(spec.shape) == 2]


def _interface_problem(model: Model, options: Options) -> str | None:
    specs, length = _token_inputs(model), int(options["length"])
    if not specs:
        return "no input holds integers [batch, sequence]."
    axis = specs[0].shape[1]
    for spec in specs[1:]:
        if spec.shape[1] != axis:
            return f"the inputs {specs[0].name!r} and {spec.name!r} differ in the length of their sequences."
    if isinstance(axis, int):
        return f"sequences have {axis} positions, no more than {length}." if axis <= length else None
    if options["keep"] == "ends":
        return "sequences of any length cannot keep both ends: short ones would repeat their middle."
    for spec in (*model.signature.inputs, *model.signature.outputs):
        if spec not in specs and axis != "?" and axis in spec.shape:
            return f"{spec.name!r} has the sequence axis {axis!r} too: it would no longer fit."
    return None


def _shorten(model: OnnxModel, proto: onnx.ModelProto, options: Options) -> str | None:
    """Cut `proto` in place; say in words why the network cannot follow, or return None."""
    specs, length = _token_inputs(model), int(options["length"])
    dims = {f"{spec.name}[1]": 2 * length for spec in specs if isinstance(spec.shape[1], str)}
    slicer = _slicer(str(options["keep"]))
    shorter: dict[str, str] = {}
    for spec in specs:
        nodes, result = slicer(proto.graph, spec.name, 1, length)
        insert_before_use(proto.graph, spec.name, nodes, result)
        shorter[result] = spec.name
    return follow(model, proto, shorter, dims, slicer)


def _slicer(keep: str) -> Slicer:
    """One Slice, or one for each end and a Concat. What was cut before is not cut again."""
    done: dict[tuple[str, int], str] = {}

    def cut(graph: onnx.GraphProto, source: str, axis: int, size: int) -> tuple[list[onnx.NodeProto], str]:
        if (source, axis) in done:
            return [], done[source, axis]
        tail = {"start": 0, "end": size, "ends": size // 2}[keep]
        ranges = [(0, size - tail)] if tail < size else []
        ranges += [(-tail, _LAST)] if tail else []
        nodes = [_slice(graph, source, axis, start, stop) for start, stop in ranges]
        if len(nodes) > 1:
            joined = fresh(graph, f"{source}_reduce_length_{axis}")
            parts = [node.output[0] for node in nodes]
            nodes.append(helper.make_node("Concat", parts, [joined], name=joined, axis=axis))
        done[source, axis] = nodes[-1].output[0]
        return nodes, nodes[-1].output[0]

    return cut


def _slice(graph: onnx.GraphProto, source: str, axis: int, start: int, stop: int) -> onnx.NodeProto:
    values = {"start": start, "stop": stop, "axis": axis}
    inputs = [
        add_constant(graph, f"{source}_reduce_length_{kind}", np.array([value], np.int64))
        for kind, value in values.items()
    ]
    result = fresh(graph, f"{source}_reduce_length_{axis}_{'end' if start < 0 else 'start'}")
    return helper.make_node("Slice", [source, *inputs], [result], name=result)


def _longest(samples: Samples, name: str) -> Arrays | None:
    """The sample with the longest sequence; None where there are no samples."""
    everything = (samples.inputs(index) for index in range(len(samples)))
    return max(everything, key=lambda sample: np.shape(sample[name])[-1], default=None)
