"""Rules of `replace_operators` that approximate activation functions by cheaper ones.

Largest differences: GELU and its tanh form 5e-4, GELU and x * sigmoid(1.702 x) 0.021 (both Hendrycks and Gimpel 2016);
swish and hard swish 0.14 (Howard et al. 2019), which a network that was not trained for it may not bear.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

from hasten.transform.graph import CONTRIB, Graph, attribute
from hasten.transform.rewrite import Change
from hasten.transform.scalar_functions import function_of, regions

__all__ = ["hard_swish", "sigmoid_gelu", "tanh_gelu"]


def tanh_gelu(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
    """GELU in its tanh form: a standard operator from 20 on, before that ONNX Runtime's."""
    x = _argument(graph, anchor, "gelu")
    if x is None:
        return None
    if graph.opset >= 20:
        return Change("tanh_gelu", [graph.node("Gelu", [x], anchor.output[0], attributes={"approximate": "tanh"})])
    return Change("tanh_gelu", [graph.node("FastGelu", [x], anchor.output[0], domain=CONTRIB)])


def sigmoid_gelu(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
    """GELU as x * sigmoid(1.702 x), in standard operators that engines fuse."""
    x = _argument(graph, anchor, "gelu")
    if x is None:
        return None
    factor = graph.add_constant(f"{anchor.output[0]}/factor", np.array(1.702, np.float32))
    scaled, gate = (graph.new_name(f"{anchor.output[0]}/{word}") for word in ("scaled", "gate"))
    return Change(
        "sigmoid_gelu",
        [
            graph.node("Mul", [x, factor], scaled),
            graph.node("Sigmoid", [scaled], gate),
            graph.node("Mul", [x, gate], anchor.output[0]),
        ],
    )


def hard_swish(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
    """Swish as hard swish (operator set 14)."""
    x = _argument(graph, anchor, "swish") if graph.opset >= 14 else None
    return None if x is None else Change("hard_swish", [graph.node("HardSwish", [x], anchor.output[0])])


def _argument(graph: Graph, anchor: onnx.NodeProto, function: str) -> str | None:
    """The tensor of which the anchor is `function`: spelled out, or by an operator of that name."""
    if graph.type(anchor.output[0]) != TensorProto.FLOAT:
        return None
    if function == "gelu" and anchor.op_type == "Gelu" and anchor.domain in ("", CONTRIB):
        return anchor.input[0] if attribute(anchor, "approximate", b"none") == b"none" else None
    for region in regions(graph, anchor):
        if function_of(graph, region) == function:
            return region.variable
    return None
