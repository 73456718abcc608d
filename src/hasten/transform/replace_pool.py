"""Rules of `replace_operators` for pooling: a large window in two passes, first down, then across.

A maximum over k x k numbers takes k * k comparisons in one pass and 2 k in two; a mean likewise, if every window has
the same number of elements.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto

from hasten.transform.graph import Graph, attribute
from hasten.transform.rewrite import Change

__all__ = ["average_pool", "max_pool"]

_LEAST = 3


def max_pool(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
    """A maximum over a large window."""
    if anchor.op_type != "MaxPool" or len([name for name in anchor.output if name]) != 1:
        return None
    window = attribute(anchor, "kernel_shape", [])
    # Three by three has kernels of its own.
    return _two_passes(graph, anchor, "max_pool") if len(window) == 2 and window[0] * window[1] > 9 else None


def average_pool(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
    """A mean over a large window, if padding counts or there is none."""
    if anchor.op_type != "AveragePool" or attribute(anchor, "ceil_mode", 0):
        return None
    if any(attribute(anchor, "pads", [])) and not attribute(anchor, "count_include_pad", 0):
        return None
    return _two_passes(graph, anchor, "average_pool")


def _two_passes(graph: Graph, anchor: onnx.NodeProto, form: str) -> Change | None:
    window = attribute(anchor, "kernel_shape", [])
    fixed = attribute(anchor, "auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    if anchor.domain or not fixed or len(window) != 2 or min(window) < _LEAST:
        return None
    if graph.type(anchor.output[0]) != TensorProto.FLOAT:
        return None
    between = graph.new_name(f"{anchor.output[0]}/rows")
    down = graph.node(anchor.op_type, [anchor.input[0]], between, attributes=_along(anchor, 0))
    across = graph.node(anchor.op_type, [between], anchor.output[0], attributes=_along(anchor, 1))
    return Change(form, [down, across])


def _along(node: onnx.NodeProto, axis: int) -> dict[str, Any]:
    """The attributes of the pass along one axis: nothing happens along the other."""
    found: dict[str, Any] = {}
    for name, idle in (("kernel_shape", 1), ("strides", 1), ("dilations", 1)):
        values = attribute(node, name)
        if values:
            found[name] = [values[axis] if place == axis else idle for place in range(2)]
    pads = attribute(node, "pads")
    if pads:
        found["pads"] = [pads[place] if place % 2 == axis else 0 for place in range(4)]
    for name in ("ceil_mode", "count_include_pad"):
        if attribute(node, name, 0):
            found[name] = attribute(node, name)
    return found
