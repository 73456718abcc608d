"""Run a network on a smaller picture than it was trained for, made smaller inside the graph.

The interface keeps the trained size: a client sends what it sent before, so measuring and serving cannot differ in how
they resize. Cost falls with the square of the side.

Resizing is linear, and is written as two matrix products with constant matrices (rows, then columns) that hold the
antialiased triangle filter. The operator Resize could say the same in one node, but engines differ in what they make of
it: OpenVINO's answers for the antialiased form are not those of ONNX Runtime. Matrix products are alike everywhere and
need no newer operator set. The resolution axis of network scaling: Tan and Le 2019, EfficientNet.
"""

from __future__ import annotations

from typing import Any, NamedTuple, final

import numpy as np
import onnx
from onnx import helper

from hasten.model.base import Model
from hasten.model.onnx_file import OnnxModel, save_proto
from hasten.transform.base import Options, Task, Transform, TransformFailed
from hasten.transform.onnx_graph import add_constant, load
from hasten.transform.shrink import follow, fresh, insert_before_use

__all__ = ["ReduceResolution", "resizing_matrix"]

_CHANNELS = (1, 3, 4)


@final
class ReduceResolution(Transform):
    """Resize the image input to `size` ("160" or "160x128", height first), or by `scale` to multiples of `multiple`."""

    name = "reduce_resolution"
    promise = "approximate"
    defaults = {"scale": 0.75, "size": "", "multiple": 8}

    def requires(self, model: Model, options: Options) -> str | None:
        """One f32 image of fixed size, and a network that takes any size and answers in the same shape."""
        assert isinstance(model, OnnxModel), "the base lets only the declared formats through"
        plan = _plan(model, options)
        if isinstance(plan, str):
            return plan
        smaller = onnx.ModelProto()
        smaller.CopyFrom(model.proto)
        return _shrink(model, smaller, plan)

    def apply(self, task: Task) -> None:
        """Put the two matrix products behind the input and let the rest follow."""
        model = task.model
        assert isinstance(model, OnnxModel), "the base lets only the declared formats through"
        plan = _plan(model, task.options)
        proto = load(model)
        problem = plan if isinstance(plan, str) else _shrink(model, proto, plan)
        if isinstance(plan, str) or problem:
            raise TransformFailed(f"reduce_resolution does not apply: {problem}")
        save_proto(proto, task.out)
        was, now = ("x".join(map(str, sides)) for sides in (plan.was, plan.now))
        task.notes.append(f"{plan.input} is resized from {was} to {now} (height x width) inside the graph.")


class _Plan(NamedTuple):
    """Which input becomes how small; `channels` is their number where they are the last axis, else None."""

    input: str
    was: tuple[int, int]
    now: tuple[int, int]
    channels: int | None


def resizing_matrix(old: int, new: int) -> np.ndarray[Any, Any]:
    """The f32 matrix [new, old] that makes `new` values of `old` by the triangle filter, as wide as one new pixel.

    Pixels are areas (half-pixel centres), rows sum to one: what Pillow's BILINEAR and an antialiased Resize compute.
    """
    scale = max(old / new, 1.0)
    centres = (np.arange(new) + 0.5) * old / new
    distances = np.abs(np.arange(old)[None, :] + 0.5 - centres[:, None]) / scale
    weights = np.clip(1.0 - distances, 0.0, None)
    return np.ascontiguousarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def _plan(model: Model, options: Options) -> _Plan | str:
    """Find the image input and its new size, or say in words why there is none."""
    images = [spec for spec in model.signature.inputs if len(spec.shape) == 4]
    if len(images) != 1:
        return f"it needs one image input [batch, channels, height, width]; the model has {len(images)} of that kind."
    spec = images[0]
    last = spec.shape[1] not in _CHANNELS
    channels = spec.shape[3 if last else 1]
    if channels not in _CHANNELS:
        return f"the input {spec.name!r} is no image: no axis of it has 1, 3 or 4 channels."
    if spec.dtype != "FP32":
        return f"the input {spec.name!r} has type {spec.dtype}; resizing works on FP32 (fold_preprocess comes later)."
    height, width = spec.shape[1:3] if last else spec.shape[2:4]
    if isinstance(height, str) or isinstance(width, str):
        return f"height or width of {spec.name!r} is open: send smaller pictures, no change of the model is needed."
    now = _new_size((height, width), options)
    if isinstance(now, str):
        return now
    if now[0] > height or now[1] > width or now == (height, width):
        return f"{height}x{width} would become {now[0]}x{now[1]}, which is no reduction."
    return _Plan(spec.name, (height, width), now, int(channels) if last else None)


def _new_size(was: tuple[int, int], options: Options) -> tuple[int, int] | str:
    size, multiple = str(options["size"]).lower(), int(options["multiple"])
    if size:
        sides = size.split("x")
        if len(sides) > 2 or not all(side.strip().isdigit() and int(side) > 0 for side in sides):
            return f'the option size is {size!r}; write "160" or "160x128" (height first).'
        return int(sides[0]), int(sides[-1])
    scale = float(options["scale"])
    if not 0.0 < scale < 1.0 or multiple < 1:
        return "the option scale must lie between 0 and 1, and multiple must be at least 1."
    height, width = (max(multiple, round(side * scale / multiple) * multiple) for side in was)
    return height, width


def _shrink(model: OnnxModel, proto: onnx.ModelProto, plan: _Plan) -> str | None:
    """Resize in `proto`, in place; say in words why the network cannot follow, or return None."""
    name = fresh(proto.graph, f"{plan.input}_reduce_resolution")
    nodes = (_resize_first if plan.channels is None else _resize_last)(proto.graph, plan, name)
    insert_before_use(proto.graph, plan.input, nodes, name)
    return follow(model, proto, {name: plan.input}, {})


def _resize_first(graph: onnx.GraphProto, plan: _Plan, name: str) -> list[onnx.NodeProto]:
    """[n, c, h, w]: rows from the left, columns from the right."""
    rows = add_constant(graph, f"{name}_rows", resizing_matrix(plan.was[0], plan.now[0]))
    columns = add_constant(graph, f"{name}_columns", resizing_matrix(plan.was[1], plan.now[1]).T.copy())
    return [
        _node("MatMul", [rows, plan.input], f"{name}_height"),
        _node("MatMul", [f"{name}_height", columns], name),
    ]


def _resize_last(graph: onnx.GraphProto, plan: _Plan, name: str) -> list[onnx.NodeProto]:
    """[n, h, w, c]: rows act on [h, w * c], columns on [w, c]."""
    rows = add_constant(graph, f"{name}_rows", resizing_matrix(plan.was[0], plan.now[0]))
    columns = add_constant(graph, f"{name}_columns", resizing_matrix(plan.was[1], plan.now[1]))
    width, channels = plan.was[1], plan.channels or 1
    flat = add_constant(graph, f"{name}_flat_shape", np.array([0, 0, width * channels], np.int64))
    full = add_constant(graph, f"{name}_full_shape", np.array([0, 0, width, channels], np.int64))
    return [
        _node("Reshape", [plan.input, flat], f"{name}_flat"),
        _node("MatMul", [rows, f"{name}_flat"], f"{name}_height"),
        _node("Reshape", [f"{name}_height", full], f"{name}_full"),
        _node("MatMul", [columns, f"{name}_full"], name),
    ]


def _node(kind: str, inputs: list[str], output: str) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=output)
