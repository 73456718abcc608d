"""A cascade inside the graph: an int8 form of the model answers, and the model itself answers close calls again.

A narrower format changes few answers, and those are close calls nearly all: two classes whose scores hardly differ. So
the graph holds both forms, the narrow one first. The margin of a row is the difference between its two highest scores
(last axis of the first output), the least one where a row has many positions; rows below the limit are gathered, run
through the model as it was and put back in their places, all in one `If`. Where no row is a close call, the model as it
was does not run. Engines need nothing but ONNX for it, and a bundle holds one file.

Source: cascades of classifiers that may say "I don't know" (IDK cascades; Wang et al. 2018), with the margin as
confidence.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import onnx
from onnx import TensorProto, helper

from hasten.data.dataset import Samples
from hasten.data.stacking import PROBES, rows_are_independent
from hasten.engine.base import engines, reference_engine
from hasten.errors import EngineError
from hasten.model.base import Model
from hasten.model.onnx_file import save_proto
from hasten.model.open import open_model
from hasten.spec.cascade import FOUND
from hasten.spec.signature import Signature
from hasten.spec.target import Target
from hasten.transform.base import Options, Task, Transform, TransformFailed
from hasten.transform.onnx_graph import add_constant, is_quantized, load, prefixed
from hasten.transform.quantize_dynamic import QuantizeDynamic
from hasten.transform.quantize_static import QuantizeStatic

__all__ = ["Cascade"]

_INNER: dict[str, Transform] = {item.name: item for item in (QuantizeStatic(), QuantizeDynamic())}
_OLDEST = 13
# Reductions take their axes as an input from here on.
_AXES_AS_INPUT = 18
_SCORES = ("FP32", "FP16", "FP64")


@final
class Cascade(Transform):
    """Put an int8 form before the model. Options: `of`, the technique that makes it; `below`, the margin below which a
    row is computed again; and those of that technique.
    """

    name = "cascade"
    promise = "approximate"
    defaults = {"of": "quantize_static", "below": 0.1, **QuantizeStatic.defaults, **QuantizeDynamic.defaults}

    def requires(self, model: Model, options: Options) -> str | None:
        """What the inner technique requires, and scores over two classes or more in the first output."""
        inner = _INNER.get(str(options["of"]))
        if inner is None:
            return f"it knows no technique {options['of']!r}: choose {' or '.join(_INNER)}."
        if float(options["below"]) < 0:
            return "a margin cannot be negative."
        if model.opset < _OLDEST:
            return f"it needs operator set {_OLDEST}, the model uses {model.opset} (raise_opset first)."
        if is_quantized(model):
            return "the model is quantized already, and nothing surer is left for close calls."
        scores = model.signature.outputs[0]
        last = scores.shape[-1] if len(scores.shape) > 1 else 0
        if scores.dtype not in _SCORES or not isinstance(last, int) or last < 2:
            return f"the first output, {scores.name!r}, holds no scores over two classes or more for each row."
        return inner.requires(model, _own(inner, options))

    def sites(self, model: Model, options: Options) -> Sequence[str]:
        """The sites of the inner technique."""
        inner = _INNER[str(options["of"])]
        return inner.sites(model, _own(inner, options))

    def apply(self, task: Task) -> None:
        """Make the int8 form, and put both into one graph."""
        inner = _INNER[str(task.options["of"])]
        with tempfile.TemporaryDirectory(prefix="hasten-cascade-") as folder:
            out = Path(folder) / "light.onnx"
            inner.apply(
                Task(
                    model=task.model,
                    out=out,
                    calibration=task.calibration,
                    options=_own(inner, task.options),
                    skip=task.skip,
                    notes=task.notes,
                )
            )
            light = load(open_model(out))
        by_row = _has_rows(task.model, task.calibration)
        below = float(task.options["below"])
        save_proto(_joined(light, load(task.model), task.model.signature, below, by_row=by_row), task.out)


def _own(inner: Transform, options: Options) -> dict[str, Any]:
    return {name: options[name] for name in inner.defaults}


def _joined(
    light: onnx.ModelProto, full: onnx.ModelProto, signature: Signature, below: float, *, by_row: bool
) -> onnx.ModelProto:
    """The graph of `light`, with the margin of its answers, and `full` behind an If: for close calls alone, `by_row`,
    or for the whole batch.
    """
    opset = _opset(light)
    if opset != _opset(full):
        raise TransformFailed(f"the int8 form uses operator set {opset}, the model {_opset(full)} (raise_opset first).")
    inputs = [spec.name for spec in signature.inputs]
    outputs = [spec.name for spec in signature.outputs]
    graph = prefixed(light.graph, "light/", keep=inputs)
    branch = prefixed(full.graph, "full/", keep=() if by_row else inputs)
    close = _close(graph, signature, below, opset)
    # As a whole, the model reads the inputs of the graph itself.
    del branch.input[:]
    then = _again_by_row(branch, inputs, outputs, close) if by_row else branch
    rest = helper.make_graph(
        [helper.make_node("Identity", [f"light/{name}"], [f"light/kept/{name}"]) for name in outputs],
        "sure",
        [],
        [_renamed(value, f"light/kept/{value.name}") for value in full.graph.output],
    )
    some, largest = "light/cascade/some", "light/cascade/largest"
    graph.node.extend(
        [
            helper.make_node("Cast", [close], [f"{largest}_of"], to=TensorProto.INT32, name=f"{largest}_of"),
            helper.make_node("ReduceMax", [f"{largest}_of"], [largest], keepdims=0, name=largest),
            helper.make_node("Cast", [largest], [some], to=TensorProto.BOOL, name=some),
            helper.make_node("If", [some], outputs, then_branch=then, else_branch=rest, name="cascade"),
        ]
    )
    del graph.output[:]
    graph.output.extend(full.graph.output)
    joined = onnx.ModelProto()
    joined.CopyFrom(full)
    joined.graph.CopyFrom(graph)
    joined.ir_version = max(full.ir_version, light.ir_version)
    known = {item.domain for item in joined.opset_import}
    joined.opset_import.extend(item for item in light.opset_import if item.domain not in known)
    return joined


def _close(graph: onnx.GraphProto, signature: Signature, below: float, opset: int) -> str:
    """Add the margin of each row, and whether it is too small: a bool [batch]. Scores that are no numbers decide
    nothing, so that they count as close.
    """
    scores = signature.outputs[0]
    kind = {"FP32": np.float32, "FP16": np.float16, "FP64": np.float64}[scores.dtype]
    places = [add_constant(graph, f"light/cascade/place_{at}", np.array(at, np.int64)) for at in (0, 1)]
    two = add_constant(graph, "light/cascade/two", np.array([2], np.int64))
    limit = add_constant(graph, "light/cascade/below", np.array(below, kind))
    margin = "light/cascade/margin"

    def node(kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        graph.node.append(helper.make_node(kind, inputs, outputs, name=outputs[0], **attributes))

    node("TopK", [f"light/{scores.name}", two], [f"{margin}_best", f"{margin}_classes"], axis=-1)
    for place, name in zip(places, ("first", "second"), strict=True):
        node("Gather", [f"{margin}_best", place], [f"{margin}_{name}"], axis=-1)
    node("Sub", [f"{margin}_first", f"{margin}_second"], [margin])
    if len(scores.shape) > 2:
        axes = list(range(1, len(scores.shape) - 1))
        if opset < _AXES_AS_INPUT:
            node("ReduceMin", [margin], [f"{margin}_least"], axes=axes, keepdims=0)
        else:
            given = add_constant(graph, "light/cascade/axes", np.array(axes, np.int64))
            node("ReduceMin", [margin, given], [f"{margin}_least"], keepdims=0)
        margin = f"{margin}_least"
    node("GreaterOrEqual", [margin, limit], ["light/cascade/sure"])
    node("Not", ["light/cascade/sure"], ["light/cascade/close"])
    return "light/cascade/close"


def _again_by_row(
    branch: onnx.GraphProto, inputs: Sequence[str], outputs: Sequence[str], close: str
) -> onnx.GraphProto:
    """The model as it was, on the close calls alone, and its answers in their places."""
    rows, places = "full/cascade/rows", "full/cascade/places"
    flat = add_constant(branch, "full/cascade/flat", np.array([-1], np.int64))
    before = [
        helper.make_node("NonZero", [close], [FOUND], name=FOUND),
        helper.make_node("Reshape", [FOUND, flat], [rows], name=rows),
        helper.make_node("Transpose", [FOUND], [places], name=places, perm=[1, 0]),
    ]
    before += [
        helper.make_node("Gather", [name, rows], [f"full/{name}"], axis=0, name=f"full/cascade/{name}")
        for name in inputs
    ]
    after = [
        helper.make_node(
            "ScatterND",
            [f"light/{name}", places, f"full/{name}"],
            [f"full/settled/{name}"],
            name=f"full/settled/{name}",
        )
        for name in outputs
    ]
    own = list(branch.node)
    del branch.node[:]
    branch.node.extend([*before, *own, *after])
    values = [_renamed(value, f"full/settled/{name}") for value, name in zip(branch.output, outputs, strict=True)]
    del branch.output[:]
    branch.output.extend(values)
    return branch


def _renamed(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    other = onnx.ValueInfoProto()
    other.CopyFrom(value)
    other.name = name
    return other


def _has_rows(model: Model, calibration: Samples) -> bool:
    """Whether rows can be taken out of a batch: the model answers calibration samples together as it does alone."""
    name = reference_engine(model.format)
    session = engines.get(name).load(model.path, Target(engine=name))
    try:
        samples = [calibration.inputs(at) for at in range(min(PROBES, len(calibration)))]
        return rows_are_independent(session.signature, samples, session.run)
    except EngineError:
        return False
    finally:
        session.close()


def _opset(proto: onnx.ModelProto) -> int:
    return max((item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")), default=0)
