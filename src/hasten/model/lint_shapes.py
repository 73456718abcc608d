"""Lint rules about shapes and types: what keeps engines from planning ahead, and servers from batching."""

from __future__ import annotations

import math

from onnx import TensorProto

from hasten.model.flops import MATRIX
from hasten.model.lint_base import Found, Rule, View, label, rule_of, seen

__all__ = ["RULES"]

RULES: list[Rule] = []

# The shape of the result depends on values.
_BY_VALUE = ("NonZero", "Unique", "NonMaxSuppression", "Compress", "StringSplit")
_INTEGER_WORK = frozenset({
    "Add", "Sub", "Mul", "Div", "Mod", "Pow", "CumSum", "ReduceSum", "ReduceMax", "ReduceMin", "MatMul", "Where",
    "Clip",
})  # fmt: skip
# From this many elements on, the type of an integer tensor is worth a word.
_MANY = 1024


@rule_of(
    RULES,
    "free-axes",
    "Engines plan memory and choose kernels better for sizes that they know. If your data always has one size, export "
    "with it; a few sizes are better than any.",
    level="note",
)
def free_axes(view: View) -> Found | None:
    """Input axes other than the first that are open: pictures of any size, sequences of any length."""
    axes = [
        f"{spec.name}[{axis}]"
        for spec in view.model.signature.inputs
        for axis, dim in enumerate(spec.shape)
        if axis and isinstance(dim, str)
    ]
    return seen(axes, "{} input axis beside the first is free.", "{} input axes beside the first are free.")


@rule_of(
    RULES,
    "unknown-shapes",
    "No engine can plan these ahead, and hasten cannot count them. Export with shapes computed from sizes, not from "
    "the contents of tensors.",
)
def unknown_shapes(view: View) -> Found | None:
    """Matrix work whose shape cannot be told even when the sizes of all inputs are known."""
    return seen(
        [
            label(n)
            for n in view.nodes
            if n.op_type in MATRIX and not n.domain and view.scope.shape(n.output[0]) is None
        ],
        "{} matrix operator has a shape that only a run can tell.",
        "{} matrix operators have shapes that only a run can tell.",
    )


@rule_of(
    RULES,
    "data-dependent-shapes",
    "What follows cannot be planned, fused or batched. If it is postprocessing, cut the model before it and do this in "
    "the client.",
)
def data_dependent_shapes(view: View) -> Found | None:
    """Operators whose result has a shape that depends on values."""
    return seen(
        map(label, view.of(*_BY_VALUE)),
        "{} node gives a result whose shape depends on values.",
        "{} nodes give results whose shapes depend on values.",
    )


@rule_of(
    RULES,
    "no-free-batch-axis",
    "A server cannot put requests together. Export with a free first axis in all inputs and outputs, if answers do not "
    "depend on their neighbours.",
    level="note",
)
def no_batch_axis(view: View) -> Found | None:
    """Inputs and outputs whose first axis is fixed, or that have no axis."""
    tensors = (*view.model.signature.inputs, *view.model.signature.outputs)
    fixed = [spec.name for spec in tensors if not spec.shape or isinstance(spec.shape[0], int)]
    return seen(fixed, "{} input or output has no free first axis.", "{} inputs or outputs have no free first axis.")


@rule_of(
    RULES,
    "double-precision",
    "f64 at least halves the speed of every kernel, and many engines have none. Export in f32.",
)
def double_precision(view: View) -> Found | None:
    """Matrix work in f64."""
    return seen(
        [label(n) for n in view.nodes if n.op_type in MATRIX and view.scope.type(n.output[0]) == TensorProto.DOUBLE],
        "{} matrix operator computes in f64.",
        "{} matrix operators compute in f64.",
    )


@rule_of(RULES, "wide-integers", "int32 holds indices below two billion in half the memory.", level="note")
def wide_integers(view: View) -> Found | None:
    """Arithmetic on large int64 tensors."""
    found = [
        label(node)
        for node in view.nodes
        if node.op_type in _INTEGER_WORK
        and view.scope.type(node.output[0]) == TensorProto.INT64
        and math.prod(view.scope.shape(node.output[0]) or ()) >= _MANY
    ]
    return seen(found, "{} node computes a large tensor in int64.", "{} nodes compute large tensors in int64.")


@rule_of(
    RULES,
    "text-tensors",
    "Few engines take text. Cut text processing off and do it in the client, to open the rest to all engines.",
    level="note",
)
def text_tensors(view: View) -> Found | None:
    """Inputs and outputs that carry text."""
    tensors = (*view.model.signature.inputs, *view.model.signature.outputs)
    found = [spec.name for spec in tensors if spec.dtype == "BYTES"]
    return seen(found, "{} input or output carries text.", "{} inputs or outputs carry text.")
