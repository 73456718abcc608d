"""Raise a model's operator set, because later operators can say more: per-channel quantization needs version 13."""

from __future__ import annotations

from typing import final

import onnx
from onnx import external_data_helper, helper, inliner, version_converter

from hasten.model.base import Model
from hasten.model.onnx_file import OnnxModel, save_proto
from hasten.transform.base import Options, Task, Transform, TransformFailed
from hasten.transform.graph import Graph, attribute
from hasten.transform.rewrite import Change, rewrite

__all__ = ["RaiseOpset"]


@final
class RaiseOpset(Transform):
    """Convert to operator set `to` (default 17), with ONNX's own version converter. Never lowers one."""

    name = "raise_opset"
    promise = "exact"

    defaults = {"to": 17}

    def requires(self, model: Model, options: Options) -> str | None:
        """A standard operator set below the wanted one, which ONNX must know."""
        wanted, newest = int(options["to"]), onnx.defs.onnx_opset_version()
        if wanted > newest:
            return f"the installed onnx knows operator sets up to {newest}, not {wanted}."
        if model.opset == 0:
            return "the model names no standard operator set."
        return f"the model already uses operator set {model.opset}." if model.opset >= wanted else None

    def apply(self, task: Task) -> None:
        """Convert the graph without its external weights, which the converter could not hold, and tidy up after it."""
        assert isinstance(task.model, OnnxModel), "the base lets only the declared formats through"
        proto, wanted = task.model.proto, int(task.options["to"])
        if proto.functions:
            proto = inliner.inline_local_functions(proto)
        try:
            raised = version_converter.convert_version(proto, wanted)
        except Exception as error:
            raise TransformFailed(
                f"raise_opset failed: ONNX's version converter gave up: {_last_words(error)}.",
                remedy=f"Export the model again with operator set {wanted}.",
            ) from error
        least = helper.find_min_ir_version_for(list(raised.opset_import), ignore_unknown=True)
        raised.ir_version = max(raised.ir_version, least)
        graph = Graph(raised, task.model)
        rewrite(graph, [_plain_softmax])
        raised = graph.finish()
        if task.model.files()[1:]:
            external_data_helper.load_external_data_for_model(raised, str(task.model.path.parent))
        save_proto(raised, task.out)


def _last_words(error: Exception) -> str:
    """What the converter says, without the place in its source."""
    return " ".join(str(error).split()).rpartition(" failed: ")[2][:200].rstrip(".")


def _plain_softmax(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
    """Take back what the converter writes for a softmax of before 13 that is over the last axis alone.

    It flattens to two dimensions, as the old definition does, and shapes the result back; nothing is flattened then,
    but later techniques do not know an attention by it.
    """
    softmax = graph.producer(anchor.input[0], "Softmax", "LogSoftmax") if anchor.op_type == "Reshape" else None
    flat = graph.producer(softmax.input[0], "Flatten") if softmax is not None else None
    shape = graph.producer(anchor.input[1], "Shape") if flat is not None else None
    if softmax is None or flat is None or shape is None or shape.input[0] != flat.input[0]:
        return None
    rank = graph.rank(flat.input[0])
    if rank is None or attribute(flat, "axis", 1) % rank != rank - 1 or attribute(softmax, "axis", -1) not in (-1, 1):
        return None
    return Change("softmax", [graph.node(softmax.op_type, [flat.input[0]], anchor.output[0], axis=-1)])
