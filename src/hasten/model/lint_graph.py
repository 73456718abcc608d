"""Lint rules about the graph: work that nobody needs, leftovers of training and export, undone transposes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from hasten.model.lint_base import Found, Rule, View, label, rule_of, seen

__all__ = ["RULES"]

RULES: list[Rule] = []

# Operators that change each element by itself, so that a transpose may move across them.
_UNARY = frozenset({
    "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Clip", "HardSwish", "HardSigmoid", "Elu", "Gelu", "Softplus", "Sqrt",
    "Exp", "Neg", "Abs", "Erf", "Identity", "Cast", "Mish",
})  # fmt: skip
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
# The operators whose later outputs cost work when they are asked for.
_OPTIONAL = ("MaxPool", "Dropout", "BatchNormalization", "LayerNormalization", "MaxUnpool", "SkipLayerNormalization")


@rule_of(
    RULES,
    "old-opset",
    "hasten raises it before it quantizes; exporting anew is better.",
    transform="raise_opset",
)
def old_opset(view: View) -> Found | None:
    """An operator set from before per-channel quantization."""
    if view.model.opset >= 13:
        return None
    return Found(f"The model uses operator set {view.model.opset}; per-channel quantization needs 13.")


@rule_of(
    RULES,
    "dead-nodes",
    "Engines drop them at load; folding drops them from the file.",
    level="note",
    transform="fold",
)
def dead_nodes(view: View) -> Found | None:
    """Nodes from which no output of the graph can be reached."""
    needed = {value.name for value in view.graph.output}
    dead: list[str] = []
    for node in reversed(view.nodes):
        if any(name in needed for name in node.output):
            needed |= _reads(node)
        elif node.op_type != "Constant":
            dead.append(label(node))
    return seen(reversed(dead), "{} node leads to no output.", "{} nodes lead to no output.")


def _reads(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, those inside its subgraphs included."""
    names = set(node.input)
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            names |= {value.name for value in body.output}
            for inner in body.node:
                names |= _reads(inner)
    return names


@rule_of(
    RULES,
    "unused-outputs",
    "Some kernels take a slower path to fill them. Export in evaluation mode, and name only outputs that are read.",
)
def unused_outputs(view: View) -> Found | None:
    """Optional outputs of a node that nobody reads, though the node was asked for them."""
    return seen(
        [
            f"{label(node)}: {name}"
            for node in view.of(*_OPTIONAL)
            for name in node.output[1:]
            if name and not view.read(name) and name not in view.outputs
        ],
        "{} optional output of a node is asked for and read by nobody.",
        "{} optional outputs of nodes are asked for and read by nobody.",
    )


@rule_of(RULES, "redundant-outputs", "Each answer carries them over the wire: leave them out when exporting.")
def redundant_outputs(view: View) -> Found | None:
    """Outputs of the model that are another output, an input or a constant under a second name."""
    inputs = {value.name for value in view.graph.input}
    sources: set[str] = set()
    again: list[str] = []
    for value in view.graph.output:
        source = value.name
        while (node := view.producers.get(source)) is not None and node.op_type == "Identity":
            source = node.input[0]
        if source in inputs or source in view.constants or source in sources:
            again.append(value.name)
        sources.add(source)
    rest = "a constant, an input or another output again."
    return seen(again, "{} output of the model is " + rest, "{} outputs of the model are " + rest)


@rule_of(RULES, "no-op-nodes", "Each may copy its tensor; folding removes them.", level="note", transform="fold")
def no_ops(view: View) -> Found | None:
    """Nodes whose result is their input."""
    idle = [label(node) for node in view.nodes if _does_nothing(view, node)]
    return seen(idle, "{} node changes nothing.", "{} nodes change nothing.")


def _does_nothing(view: View, node: onnx.NodeProto) -> bool:
    kind = node.op_type
    if kind == "Identity":
        # An output that is an input or a weight needs one.
        return node.input[0] in view.producers
    if kind in ("Concat", "Sum", "Max", "Min", "Mean"):
        return len(node.input) == 1
    if kind == "Transpose":
        permutation = _permutation(node)
        return bool(permutation) and permutation == sorted(permutation)
    if kind == "Cast":
        return view.scope.type(node.input[0]) == _attribute(node, "to")
    if kind == "Dropout":
        return not _trains(view, node)
    if kind == "Pad":
        return len(node.input) > 1 and _all(view, node.input[1], 0)
    if kind in ("Add", "Sub"):
        return _all(view, node.input[1], 0) and _same_shape(view, node)
    return kind in ("Mul", "Div") and _all(view, node.input[1], 1) and _same_shape(view, node)


def _all(view: View, name: str, wanted: float) -> bool:
    value = view.value(name)
    return value is not None and value.size > 0 and value.dtype.kind in "fiub" and bool(np.all(value == wanted))


def _same_shape(view: View, node: onnx.NodeProto) -> bool:
    """Adding zero may still broadcast."""
    shape = view.scope.shape(node.input[0])
    return shape is not None and shape == view.scope.shape(node.output[0])


@rule_of(
    RULES,
    "training-leftovers",
    "Answers depend on chance or on the rest of the batch. Put the module, and any wrapper around it, into evaluation "
    "mode and export again.",
)
def training_leftovers(view: View) -> Found | None:
    """Nodes that behave as in training: random ones, and normalization by the batch at hand."""
    return seen(
        [label(node) for node in view.everywhere if _trains(view, node)],
        "{} node behaves as in training: random, or normalizing by the batch at hand.",
        "{} nodes behave as in training: random, or normalizing by the batch at hand.",
    )


def _trains(view: View, node: onnx.NodeProto) -> bool:
    if node.op_type == "Dropout":
        return len(node.input) > 2 and bool(node.input[2]) and not _all(view, node.input[2], False)
    if node.op_type == "BatchNormalization":
        named = [name for name in node.output[1:] if name]
        return bool(_attribute(node, "training_mode", 0)) or (view.model.opset < 14 and bool(named))
    return node.op_type in _RANDOM


@rule_of(RULES, "cancelling-transposes", "Each copies its tensor; hasten removes such pairs.", transform="layout")
def cancelling_transposes(view: View) -> Found | None:
    """Pairs of transposes, with nothing but elementwise operators between them, that undo each other."""
    pairs: list[str] = []
    for node in view.nodes:
        first = _transpose_before(view, node) if node.op_type == "Transpose" else None
        if first is not None and _undo(_permutation(first), _permutation(node)):
            pairs.append(f"{label(first)} and {label(node)}")
    return seen(pairs, "{} pair of transposes undo each other.", "{} pairs of transposes undo each other.")


def _undo(one: list[int], two: list[int]) -> bool:
    return bool(one) and len(one) == len(two) and [one[axis] for axis in two] == sorted(one)


def _transpose_before(view: View, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The transpose whose result `node` gets, through operators that a transpose may cross."""
    before = view.producers.get(node.input[0])
    while before is not None and before.op_type in _UNARY:
        before = view.producers.get(before.input[0])
    return before if before is not None and before.op_type == "Transpose" else None


def _permutation(node: onnx.NodeProto) -> list[int]:
    return list(_attribute(node, "perm", []))


def _attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    found = next((item for item in node.attribute if item.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)
