"""Remove transposes: cancel pairs of them, and move them through nodes that work in any layout, where that saves some.

Exporters from frameworks that keep channels last surround each convolution with a pair of transposes; what lies between
the pairs of two convolutions is mostly elementwise. Moving is decided for whole regions at once: a region changes its
layout if fewer transposes are left around it than before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from hasten.model.base import Model
from hasten.model.onnx_file import OnnxModel
from hasten.transform.base import Options, Task, Transform
from hasten.transform.layout_region import flip_region
from hasten.transform.layout_rules import absorb_in_gemm, merge_transposes, transpose_to_reshape
from hasten.transform.rewrite import Rule, apply_rules, rewritten_sites

__all__ = ["Layout"]

_RULES: tuple[Rule, ...] = (merge_transposes, flip_region, absorb_in_gemm, transpose_to_reshape)
_NAMES = {
    "merged": "transposes merged with or cancelled by the one before",
    "moved": "regions moved to the layout around them",
    "absorbed": "transposes absorbed into a matrix product",
    "reshape": "transposes that move no data made reshapes",
}


@final
class Layout(Transform):
    """Transposes are cancelled, moved or absorbed. Sites are the transposes at which that begins."""

    name = "layout"
    promise = "exact"

    def requires(self, model: Model, options: Options) -> str | None:
        """A transpose that can be saved."""
        if not model.operators()["Transpose"]:
            return "the model has no transposes."
        return None if self.sites(model, options) else "no transpose of the model can be saved."

    def sites(self, model: Model, options: Options) -> Sequence[str]:
        """The transposes at which a change begins, in graph order."""
        assert isinstance(model, OnnxModel), "the base lets only the declared formats through"
        return rewritten_sites(model, _RULES)

    def apply(self, task: Task) -> None:
        """Apply all rules until nothing is left to save."""
        apply_rules(task, _RULES, _NAMES)
