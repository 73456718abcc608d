"""Simplify with onnxslim, a second graph simplifier, and keep what holds.

It knows patterns that the others do not (padding into convolutions, reshapes in a row, common subexpressions), and has
been seen to change answers. So each of its passes is a site: where the answers change, the base finds the pass that
does it and leaves that one out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, final

import onnx

from hasten.model.base import Model
from hasten.model.onnx_file import OnnxModel, all_nodes, save_proto
from hasten.transform.base import Options, Task, Transform, TransformFailed
from hasten.transform.onnx_graph import load

__all__ = ["Slim"]

# The library's own words for its passes; "graph_fusion" stands for the patterns, which are sites of their own.
_PASSES = ("constant_folding", "dead_node_elimination", "subexpression_elimination", "weight_tying")
# The library serializes the whole model between its passes.
_MOST_BYTES = 3 * 2**29
# Results of constant folding above this size are left to be computed at run time.
_LARGEST = 2**22


@final
class Slim(Transform):
    """onnxslim's passes and fusion patterns. Sites are their names."""

    name = "slim"
    promise = "exact"

    def requires(self, model: Model, options: Options) -> str | None:
        """A model that fits one protobuf message, without functions of its own."""
        assert isinstance(model, OnnxModel), "the base lets only the declared formats through"
        if model.bytes_on_disk > _MOST_BYTES:
            return "onnxslim cannot hold models of more than 1.5 GB."
        return "onnxslim does not know functions that a model brings." if model.proto.functions else None

    def sites(self, model: Model, options: Options) -> Sequence[str]:
        """The passes of the library, and its fusion patterns."""
        from onnxslim.core.pattern.registry import DEFAULT_FUSION_PATTERNS

        return [*_PASSES, *DEFAULT_FUSION_PATTERNS]

    def apply(self, task: Task) -> None:
        """Run all passes that are not skipped."""
        import onnxslim

        passes = [name for name in _PASSES if name in task.skip]
        patterns = [name for name in self.sites(task.model, task.options) if name in task.skip and name not in _PASSES]
        source = load(task.model)
        # The library's annotations do not say what it takes.
        settings: Any = {
            "skip_optimizations": passes,
            "skip_fusion_patterns": patterns,
            "size_threshold": _LARGEST,
        }
        slimmed = onnxslim.slim(load(task.model), **settings)
        if not isinstance(slimmed, onnx.ModelProto):
            raise TransformFailed("slim failed: onnxslim gave no model back.")
        _restore(source, slimmed)
        if not task.skip and _sizes(slimmed) == _sizes(source):
            raise TransformFailed("slim does not apply: onnxslim finds nothing to simplify.")
        save_proto(slimmed, task.out)


def _sizes(proto: onnx.ModelProto) -> tuple[Counter[str], int, int]:
    """What simplifying changes: operators, tensors that nodes read, and constants."""
    nodes = list(all_nodes(proto.graph))
    kinds = Counter(node.op_type for node in nodes)
    return kinds, sum(len(node.input) for node in nodes), len(proto.graph.initializer)


def _restore(source: onnx.ModelProto, slimmed: onnx.ModelProto) -> None:
    """Put back what the library drops: inputs that nobody reads, names of open dimensions, metadata."""
    weights = {tensor.name for tensor in source.graph.initializer}
    del slimmed.graph.input[:], slimmed.graph.output[:]
    slimmed.graph.input.extend(value for value in source.graph.input if value.name not in weights)
    slimmed.graph.output.extend(source.graph.output)
    del slimmed.metadata_props[:]
    slimmed.metadata_props.extend(source.metadata_props)
    used = {node.domain for node in all_nodes(slimmed.graph)} | {""}
    sets = [item for item in slimmed.opset_import if item.domain in used]
    kept = sorted(((item.domain, item.version) for item in sets), key=lambda item: item[0])
    del slimmed.opset_import[:]
    for domain, version in kept:
        slimmed.opset_import.add(domain=domain, version=version)
