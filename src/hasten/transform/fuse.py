"""Fuse what engines run faster as one operator: attention, layer normalization, activations, parallel projections.

Standard operators where the operator set has them; else those of ONNX Runtime, unless `contrib` is False. What ONNX
Runtime fuses by itself at load however it is written (a convolution with its activation, a product with its transpose)
is left to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from hasten.model.base import Model
from hasten.model.onnx_file import OnnxModel
from hasten.transform.base import Options, Task, Transform
from hasten.transform.fuse_activation import activation_rule
from hasten.transform.fuse_attention import attention_rule
from hasten.transform.fuse_norm import layer_norm, skip_layer_norm
from hasten.transform.fuse_projections import parallel_projections
from hasten.transform.rewrite import Rule, apply_rules, rewritten_sites

__all__ = ["Fuse"]

_NAMES = {
    "attention": "attentions fused",
    "gelu": "GELUs fused",
    "gelu_tanh": "GELUs in tanh form fused",
    "hard_sigmoid": "hard sigmoids fused",
    "hard_swish": "hard swishes fused",
    "layer_norm": "layer normalizations fused",
    "mish": "Mish activations fused",
    "parallel_projections": "groups of projections of one tensor joined",
    "sigmoid": "sigmoids fused",
    "skip_layer_norm": "residual sums joined with their layer normalization",
    "softplus": "softplus activations fused",
    "swish": "swishes written as x * sigmoid(x), which engines fuse",
}


@final
class Fuse(Transform):
    """Patterns of several nodes become one operator each. Sites are the nodes that make the patterns' results."""

    name = "fuse"
    promise = "exact"

    defaults = {"contrib": True, "projections": False}

    def requires(self, model: Model, options: Options) -> str | None:
        """At least one pattern."""
        if self.sites(model, options):
            return None
        older = " Its operator set is older than 17, where layer normalization begins." if model.opset < 17 else ""
        return f"the model has no pattern of nodes that one operator could replace.{older}"

    def sites(self, model: Model, options: Options) -> Sequence[str]:
        """The nodes that make the patterns' results."""
        assert isinstance(model, OnnxModel), "the base lets only the declared formats through"
        return rewritten_sites(model, _rules(options))

    def apply(self, task: Task) -> None:
        """Replace each pattern whose site is not skipped."""
        apply_rules(task, _rules(task.options), _NAMES)


def _rules(options: Options) -> list[Rule]:
    contrib = bool(options["contrib"])
    rules: list[Rule] = [layer_norm, activation_rule(contrib=contrib), attention_rule(contrib=contrib)]
    if contrib:
        rules.append(skip_layer_norm)
    if options["projections"]:
        rules.append(parallel_projections)
    return rules
