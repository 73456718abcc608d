"""Rules of `fuse` for activation functions: whatever computes one becomes the operator that exists for it."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from hasten.transform.graph import CONTRIB, Graph
from hasten.transform.rewrite import Change, Rule
from hasten.transform.scalar_functions import Region, function_of, regions

__all__ = ["activation_rule"]


def activation_rule(*, contrib: bool) -> Rule:
    """The rule; with `contrib`, GELU becomes an operator of ONNX Runtime where the operator set has none."""

    def rule(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
        if graph.type(anchor.output[0]) != TensorProto.FLOAT:
            return None
        best: Change | None = None
        for region in regions(graph, anchor):
            if len(region.nodes) < 2:
                continue
            name = function_of(graph, region)
            nodes = _made(graph, region, name, contrib=contrib) if name else None
            if name and nodes and len(nodes) < len(region.nodes):
                best = Change(name, nodes)
        return best

    return rule


def _made(graph: Graph, region: Region, name: str, *, contrib: bool) -> list[onnx.NodeProto] | None:
    x, y = region.variable, region.nodes[-1].output[0]
    if name in ("gelu", "gelu_tanh"):
        return _gelu(graph, x, y, tanh=name == "gelu_tanh", contrib=contrib)
    if name == "hard_sigmoid":
        return [graph.node("HardSigmoid", [x], y, alpha=1 / 6, beta=0.5)]
    if name == "swish":
        inner = graph.new_name(f"{y}/sigmoid")
        return [graph.node("Sigmoid", [x], inner), graph.node("Mul", [x, inner], y)]
    operator, since = {
        "hard_swish": ("HardSwish", 14),
        "mish": ("Mish", 18),
        "sigmoid": ("Sigmoid", 1),
        "softplus": ("Softplus", 1),
    }[name]
    return [graph.node(operator, [x], y)] if graph.opset >= since else None


def _gelu(graph: Graph, x: str, y: str, *, tanh: bool, contrib: bool) -> list[onnx.NodeProto] | None:
    if graph.opset >= 20:
        return [graph.node("Gelu", [x], y, attributes={"approximate": "tanh"} if tanh else None)]
    return [graph.node("FastGelu" if tanh else "Gelu", [x], y, domain=CONTRIB)] if contrib else None
