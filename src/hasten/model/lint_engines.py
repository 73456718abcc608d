"""Lint rules about engines: operators that run on a slow path, or that only one engine knows."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from hasten.model.flops import MATRIX
from hasten.model.lint_base import Found, Rule, View, label, rule_of, seen

__all__ = ["RULES"]

RULES: list[Rule] = []

_HAS_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
# At least so many casts, and one for each operator that does matrix work, are a storm.
_STORM = 4


def _computing_in(view: View, kind: int) -> list[onnx.NodeProto]:
    return [node for node in view.nodes if node.op_type in MATRIX and view.scope.type(node.output[0]) == kind]


@rule_of(
    RULES,
    "silent-bf16",
    "Pin INFERENCE_PRECISION_HINT, as hasten does: f32 and bf16 are two variants, each with its own accuracy.",
    level="note",
)
def silent_bf16(view: View) -> Found | None:
    """An f32 model on a processor on which OpenVINO computes in bf16 unless it is told not to."""
    if not view.features & _HAS_BF16 or not _computing_in(view, TensorProto.FLOAT):
        return None
    return Found("This processor has bf16: OpenVINO, left alone, computes this f32 model in bf16 and does not say so.")


@rule_of(
    RULES,
    "bf16-tensors",
    "ONNX Runtime's CPU kernels for bf16 are few; it may refuse the model. Keep the file in f32 and let hasten make "
    "the bf16 variant.",
    transform="cast_bf16",
)
def bf16_tensors(view: View) -> Found | None:
    """bf16 in the graph itself."""
    found = [name for name, tensor in view.constants.items() if tensor.data_type == TensorProto.BFLOAT16]
    found += [label(node) for node in view.of("Cast") if _to(node) == TensorProto.BFLOAT16]
    return seen(found, "{} tensor is bf16 in the graph itself.", "{} tensors are bf16 in the graph itself.")


@rule_of(
    RULES,
    "half-precision-compute",
    "Where its CPU has no f16 arithmetic, ONNX Runtime converts each operand to f32 and back, slower than f32: "
    "start from the f32 model: hasten makes f16 where it pays.",
    transform="cast_f16",
)
def half_precision(view: View) -> Found | None:
    """Matrix work in f16."""
    half = _computing_in(view, TensorProto.FLOAT16)
    return seen(map(label, half), "{} matrix operator computes in f16.", "{} matrix operators compute in f16.")


@rule_of(RULES, "cast-storm", "Each copies its tensor. Export in one float type and convert once.")
def cast_storm(view: View) -> Found | None:
    """More conversions between float types than matrix operators."""
    casts = [
        label(node)
        for node in view.nodes
        if node.op_type == "Cast"
        and _to(node) in _FLOATS
        and view.scope.type(node.input[0]) in _FLOATS
        and node.input[0] not in view.constants
    ]
    if len(casts) < max(_STORM, len(view.heavy())):
        return None
    return seen(casts, "", f"{{}} Casts between float types, for {len(view.heavy()):,} matrix operators.")


def _to(node: onnx.NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "to"), TensorProto.UNDEFINED)


@rule_of(
    RULES,
    "cubic-resize",
    "Kernels for it are neither vectorized nor threaded well. Retrain with linear interpolation, which is cheaper, or "
    "resize before the model.",
)
def cubic_resize(view: View) -> Found | None:
    """Cubic interpolation."""
    found = [n for n in view.of("Resize", "Upsample") if any(a.name == "mode" and a.s == b"cubic" for a in n.attribute)]
    return seen(map(label, found), "{} Resize interpolates cubically.", "{} Resizes interpolate cubically.")


@rule_of(
    RULES,
    "three-dimensional-convolutions",
    "Few engines have int8 or blocked kernels for them. Factored into 2-D and 1-D convolutions they run faster; that "
    "needs training.",
    level="note",
)
def volumes(view: View) -> Found | None:
    """Convolutions over three spatial axes."""
    found = [label(n) for n in view.of("Conv", "ConvTranspose") if len(view.scope.shape(n.input[0]) or ()) == 5]
    return seen(found, "{} convolution has three spatial axes.", "{} convolutions have three spatial axes.")


@rule_of(
    RULES,
    "decomposed-group-norm",
    "Export with operator set 21 or newer, which has GroupNormalization: one pass over memory instead of several, "
    "where the engine has a kernel for it.",
    level="note",
)
def group_norm(view: View) -> Found | None:
    """Reshape → InstanceNormalization → Reshape: how exporters write group normalization in old operator sets."""
    found: list[str] = []
    for node in view.of("InstanceNormalization"):
        before, after = view.producers.get(node.input[0]), view.read(node.output[0])
        if before is not None and before.op_type == "Reshape" and [n.op_type for n in after] == ["Reshape"]:
            found.append(label(node))
    rest = "spelt out in several operators."
    return seen(found, "{} group normalization is " + rest, "{} group normalizations are " + rest)


@rule_of(
    RULES,
    "einsum-nodes",
    "Engines break Einsum into transposes and products when they load, not always well, and quantizers pass it by. "
    "Write it as MatMul.",
    level="note",
)
def einsum(view: View) -> Found | None:
    """Einsum."""
    return seen(map(label, view.of("Einsum")), "{} Einsum.", "{} Einsums.")


@rule_of(
    RULES,
    "control-flow",
    "Nothing is fused, planned or quantized across it. Export with the condition or the trip count fixed, where it is.",
    level="note",
)
def control_flow(view: View) -> Found | None:
    """If, Loop and Scan."""
    rest = "of control flow (If, Loop or Scan)."
    return seen(map(label, view.of("Loop", "Scan", "If")), "{} node " + rest, "{} nodes " + rest)


@rule_of(
    RULES,
    "recurrent-layers",
    "Steps run one after the other, so more threads help little. Batches and dynamic quantization do.",
    level="note",
    transform="quantize_dynamic",
)
def recurrent_layers(view: View) -> Found | None:
    """LSTM, GRU and plain recurrent layers."""
    return seen(map(label, view.of("LSTM", "GRU", "RNN")), "{} recurrent layer.", "{} recurrent layers.")


@rule_of(
    RULES,
    "engine-specific-operators",
    "OpenVINO and most other engines refuse many of them. Give hasten the model as it was exported, before an engine "
    "optimized it.",
    level="note",
)
def foreign_operators(view: View) -> Found | None:
    """Operators from outside standard ONNX."""
    found = [node for node in view.everywhere if node.domain not in ("", "ai.onnx")]
    rest = f"to {', '.join(sorted({node.domain for node in found}))}, not to standard ONNX."
    return seen(map(label, found), "{} node belongs " + rest, "{} nodes belong " + rest)
