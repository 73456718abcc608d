"""Replace operators by cheaper forms of the same computation; by approximations only where asked to.

Each form earned its place by measurement on ONNX Runtime's CPU kernels; docs/techniques/replace_operators.md has the
figures, and those forms that were tried and left out because they gain nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from hasten.model.base import Model
from hasten.model.onnx_file import OnnxModel
from hasten.transform.base import Options, Promise, Task, Transform, TransformFailed
from hasten.transform.replace_activation import hard_swish, sigmoid_gelu, tanh_gelu
from hasten.transform.replace_arithmetic import division, expand, power
from hasten.transform.replace_matrix import einsum, one_hot
from hasten.transform.replace_pool import average_pool, max_pool
from hasten.transform.rewrite import Rule, apply_rules, rewritten_sites

__all__ = ["ReplaceOperators"]

_EXACT: dict[str, Rule] = {
    "average_pool": average_pool,
    "division": division,
    "einsum": einsum,
    "expand": expand,
    "max_pool": max_pool,
    "one_hot": one_hot,
    "power": power,
}
_CLOSE: dict[str, Rule] = {"hard_swish": hard_swish, "sigmoid_gelu": sigmoid_gelu, "tanh_gelu": tanh_gelu}
_NAMES = {
    "average_pool": "average pools made two passes",
    "division": "divisions by constants made multiplications",
    "einsum": "Einsums made matrix products",
    "expand": "Expands left to broadcasting",
    "hard_swish": "swishes approximated by hard swish",
    "max_pool": "max pools made two passes",
    "one_hot": "products with one-hot vectors made look-ups",
    "power": "powers made products, roots or reciprocals",
    "sigmoid_gelu": "GELUs approximated by x * sigmoid(1.702 x)",
    "tanh_gelu": "GELUs approximated by their tanh form",
}


@final
class ReplaceOperators(Transform):
    """Cheaper forms of single operators and small groups. Sites are the nodes that make the results."""

    name = "replace_operators"
    promise = "exact"

    defaults = {"forms": ",".join(_EXACT)}

    def promised(self, options: Options) -> Promise:
        """Exact, unless an approximation is among the forms."""
        return "close" if any(form in _CLOSE for form in _forms(options)) else "exact"

    def requires(self, model: Model, options: Options) -> str | None:
        """A node that has a cheaper form."""
        if self.sites(model, options):
            return None
        return f"no node of the model has a cheaper form among: {', '.join(_forms(options))}."

    def sites(self, model: Model, options: Options) -> Sequence[str]:
        """The nodes that make the results, in graph order."""
        assert isinstance(model, OnnxModel), "the base lets only the declared formats through"
        return rewritten_sites(model, _rules(options))

    def apply(self, task: Task) -> None:
        """Replace each node whose site is not skipped."""
        apply_rules(task, _rules(task.options), _NAMES)


def _forms(options: Options) -> list[str]:
    wanted = [form.strip() for form in str(options["forms"]).split(",") if form.strip()]
    unknown = [form for form in wanted if form not in _EXACT and form not in _CLOSE]
    if unknown:
        raise TransformFailed(
            f"replace_operators has no form {unknown[0]!r}.",
            remedy=f"Exact: {', '.join(_EXACT)}. Approximate: {', '.join(_CLOSE)}.",
        )
    return wanted


def _rules(options: Options) -> list[Rule]:
    return [(_EXACT | _CLOSE)[form] for form in _forms(options)]
