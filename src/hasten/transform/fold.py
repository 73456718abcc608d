"""Fold constants, drop idle nodes and fold batch normalization into convolutions, with ONNX Runtime's basic optimizer.

It also turns `Constant` nodes into initializers, which later transforms rely on. What the runtime writes is held to
standard operators, to the names of the original, and to its size: folding a small `Expand` must not write a
gigabyte of zeros.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

import onnx

from hasten.errors import EngineLoadError
from hasten.model.base import Model
from hasten.model.onnx_file import OnnxModel, all_nodes, open_onnx
from hasten.transform.base import Options, Task, Transform, TransformFailed
from hasten.transform.fold_affine import affine_after, affine_before
from hasten.transform.graph import Graph
from hasten.transform.rewrite import rewrite

__all__ = ["Fold"]

# A protobuf message ends at 2 GiB; what grows while folding must fit, too.
_ONE_FILE = 3 * 2**29
# Above this growth, results of more than _MODEST bytes are left to be computed at run time.
_GROWTH = 1.1
_MODEST = 2**20
# Transposes are the business of `layout`; pairs of quantize and dequantize nodes mean something to engines.
_LEFT_OUT = ["TransposeOptimizer", "DoubleQDQPairsRemover", "QDQPropagationTransformer", "EnsureUniqueDQForNodeUnit"]


@final
class Fold(Transform):
    """Constant folding, redundant-node removal and convolution-batch-norm fusion; standard operators only."""

    name = "fold"
    promise = "exact"

    def requires(self, model: Model, options: Options) -> str | None:
        """Every model that ONNX Runtime loads."""
        return None

    def apply(self, task: Task) -> None:
        """Load once with basic optimization, let the runtime save what it made, and put the file in order."""
        assert isinstance(task.model, OnnxModel), "the base lets only the declared formats through"
        before = task.model.bytes_on_disk
        _optimize(task.model, task.out, None)
        if _bytes(task.out) > before * _GROWTH + _MODEST:
            grown = _bytes(task.out)
            _optimize(task.model, task.out, _MODEST)
            task.notes.append(
                f"Folding everything would have grown the model from {before / 1e6:.1f} to {grown / 1e6:.1f} MB; "
                "results over 1 MB are computed at run time as before."
            )
        folded = _tidy(task.model, task.out)
        if folded:
            task.notes.append(f"{folded} multiplications and additions with constants went into convolutions.")


def _optimize(model: OnnxModel, out: Path, largest: int | None) -> None:
    import onnxruntime as ort

    for path in out.parent.iterdir():
        path.unlink()
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    settings.optimized_model_filepath = str(out)
    settings.add_session_config_entry("session.disable_double_qdq_remover", "1")
    if largest is not None:
        settings.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(largest))
    # Without a file of its own for weights, the runtime would refer to those beside the original model.
    if model.bytes_on_disk > _ONE_FILE or len(model.files()) > 1:
        settings.add_session_config_entry("session.optimized_model_external_initializers_file_name", out.name + ".data")
        settings.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    try:
        ort.InferenceSession(
            str(model.path), settings, providers=["CPUExecutionProvider"], disabled_optimizers=_LEFT_OUT
        )
    except Exception as error:
        raise EngineLoadError(f"onnxruntime could not fold the model: {' '.join(str(error).split())[:300]}") from error


def _tidy(model: OnnxModel, out: Path) -> int:
    """Fold what is left into convolutions and say how much; keep operator sets, inputs, outputs and metadata."""
    proto = onnx.load_model(str(out), load_external_data=False)
    graph = Graph(proto, open_onnx(out))
    folded = len(rewrite(graph, [affine_after, affine_before]))
    proto = graph.finish()
    used = {node.domain for node in all_nodes(proto.graph)}
    foreign = sorted(used - {node.domain for node in all_nodes(model.proto.graph)} - {"", "ai.onnx"})
    if foreign:
        raise TransformFailed(f"fold failed: onnxruntime wrote operators of the domain {foreign[0]!r}.")
    sets = [item for item in proto.opset_import if item.domain in used | {""}]
    original = {item.domain: item.version for item in model.proto.opset_import}
    del proto.opset_import[:]
    for item in sorted(sets, key=lambda item: item.domain):
        proto.opset_import.add(domain=item.domain, version=original.get(item.domain, item.version))
    for part in ("input", "output"):
        _restore(getattr(model.proto.graph, part), getattr(proto.graph, part))
    del proto.metadata_props[:]
    proto.metadata_props.extend(model.proto.metadata_props)
    onnx.save_model(proto, str(out))
    return folded


def _restore(wanted: object, values: object) -> None:
    """Put the original's shapes in place of those that the runtime inferred, which carry names of its own."""
    shapes = {value.name: value for value in wanted}  # type: ignore[attr-defined]
    for value in values:  # type: ignore[attr-defined]
        if value.name in shapes:
            value.CopyFrom(shapes[value.name])


def _bytes(out: Path) -> int:
    return sum(path.stat().st_size for path in out.parent.iterdir())
