"""The lint of `hasten inspect`: all rules, and what they find in a model. `docs/inspect.md` lists every code."""

from __future__ import annotations

from collections.abc import Iterable

from hasten.model import lint_engines, lint_graph, lint_quantized, lint_shapes, lint_weights
from hasten.model.lint_base import Finding, Rule, View
from hasten.model.onnx_file import OnnxModel

__all__ = ["RULES", "findings"]

RULES: tuple[Rule, ...] = (
    *lint_weights.RULES,
    *lint_graph.RULES,
    *lint_quantized.RULES,
    *lint_shapes.RULES,
    *lint_engines.RULES,
)


def findings(model: OnnxModel, features: Iterable[str] = ()) -> list[Finding]:
    """Look for what slows engines down or misleads tools; warnings first.

    `features` are the processor's instruction sets, by the names of `hasten.engine.host.FEATURES`.
    """
    view = View(model, features)
    found = [finding for rule in RULES if (finding := rule.finding(view)) is not None]
    return sorted(found, key=lambda finding: finding.level == "note")
