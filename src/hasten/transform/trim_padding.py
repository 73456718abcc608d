"""Cut the padding off token sequences inside the graph, down to the next of a few lengths.

Clients that pad every text to one length pay for the padding at every layer. Undoing that is no acceleration of the
model, and whoever can send sequences as long as the text should. But where clients cannot be changed, the graph can do
it: the attention mask says where the longest text of the batch ends, and everything behind it is cut off before the
first layer. Answers stay the same, since masked positions have no weight in them.

The lengths are few, because engines prepare themselves for each shape that they meet, and are chosen by the lengths of
the calibration samples (`data.lengths`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np
import onnx
from onnx import TensorProto, helper

from hasten.data.dataset import Arrays, Samples
from hasten.data.lengths import buckets_for, is_padding_mask, padded_length, waste
from hasten.model.base import Model
from hasten.model.onnx_file import save_proto
from hasten.model.open import open_model
from hasten.spec.tensor import TensorSpec
from hasten.transform.base import Options, Task, Transform, TransformFailed
from hasten.transform.numerics import answers_of, compare
from hasten.transform.onnx_graph import add_constant, load, replace_nodes
from hasten.transform.shrink import fresh, insert_before_use

__all__ = ["TrimPadding"]

_TOKENS = ("INT32", "INT64")
_LAST = np.iinfo(np.int64).max
_OLDEST = 12
# Less padding than this is not worth the nodes that would cut it.
_WORTH = 0.05


@final
class TrimPadding(Transform):
    """Slice all token inputs to the longest unmasked length of the batch, rounded up to one of at most `buckets`
    lengths, multiples of `multiple`.
    """

    name = "trim_padding"
    promise = "exact"
    defaults = {"buckets": 4, "multiple": 8}

    def requires(self, model: Model, options: Options) -> str | None:
        """Integer inputs [batch, sequence] of open length, a mask among them, and no output for each position."""
        if int(options["buckets"]) < 1 or int(options["multiple"]) < 1:
            return "the options buckets and multiple must be at least 1."
        problem = _interface_problem(model)
        if problem is None and model.opset < _OLDEST:
            return f"it needs operator set {_OLDEST}, the model uses {model.opset} (raise_opset first)."
        return problem

    def apply(self, task: Task) -> None:
        """Find the mask and the lengths in the calibration samples, cut, and try the most padded sample."""
        model, samples = task.model, task.calibration
        specs = _token_inputs(model)
        mask = _mask(specs, samples)
        lengths = [_length(samples.inputs(at)[mask]) for at in range(len(samples))]
        sent = [np.shape(samples.inputs(at)[mask])[-1] for at in range(len(samples))]
        if waste(lengths, sent) < _WORTH:
            raise TransformFailed("the calibration samples carry no padding to speak of.")
        buckets = buckets_for(lengths, int(task.options["buckets"]), int(task.options["multiple"]))
        proto = load(model)
        _cut(proto.graph, [spec.name for spec in specs], mask, buckets)
        save_proto(proto, task.out)
        most = max(range(len(samples)), key=lambda at: sent[at] - lengths[at])
        one = _One(samples.inputs(most))
        before, after = (answers_of(item, one, lambda sample: sample) for item in (model, open_model(task.out)))
        _, problem = compare(before, after, self.promise)
        if problem:
            raise TransformFailed(f"trim_padding does not apply: {mask!r} is no mask over padding: {problem}")
        left = [min(padded_length(length, buckets), was) for length, was in zip(lengths, sent, strict=True)]
        task.notes.append(
            f"{waste(lengths, sent):.0%} of the positions that were sent are padding; cut to "
            f"{', '.join(map(str, buckets))} positions by {mask}, {waste(lengths, left):.0%} are. This repairs what "
            f"clients send, it does not speed the model up: sequences sent at their own length gain the same."
        )


class _One(NamedTuple):
    """A single sample, as samples."""

    sample: Arrays

    def __len__(self) -> int:
        return 1

    def inputs(self, position: int, /) -> Arrays:
        return self.sample


def _token_inputs(model: Model) -> list[TensorSpec]:
    return [spec for spec in model.signature.inputs if spec.dtype in _TOKENS and len(spec.shape) == 2]


def _interface_problem(model: Model) -> str | None:
    specs = _token_inputs(model)
    if len(specs) < 2:
        return "it needs token numbers and an attention mask as inputs, both integers [batch, sequence]."
    axis = specs[0].shape[1]
    if not isinstance(axis, str):
        return f"{specs[0].name!r} has a fixed length of {axis}: export the model with an open sequence axis."
    for spec in (*model.signature.inputs, *model.signature.outputs):
        if spec not in specs and axis in spec.shape[1:]:
            return f"{spec.name!r} has the sequence axis {axis!r} too: it would no longer fit."
        if spec in specs and spec.shape[1] != axis:
            return f"the inputs {specs[0].name!r} and {spec.name!r} differ in the length of their sequences."
    return None


def _mask(specs: Sequence[TensorSpec], samples: Samples) -> str:
    """The input that is ones over the text and zeros behind it, in every sample."""
    found = [spec.name for spec in specs if len(samples) and is_padding_mask(spec.name, samples)]
    named = [name for name in found if "mask" in name.lower()]
    if len(named or found) != 1:
        raise TransformFailed(
            "no input is an attention mask: ones over the text, zeros behind it."
            if not found
            else f"more than one input could be the attention mask: {', '.join(found)}."
        )
    return (named or found)[0]


def _length(mask: np.ndarray[Any, Any]) -> int:
    return int(np.count_nonzero(mask))


def _cut(graph: onnx.GraphProto, names: Sequence[str], mask: str, buckets: Sequence[int]) -> None:
    """Compute the length of the batch and let everything that read a token input read its slice.

    With p = 1, 2, ...: the last unmasked position is max(p * mask), at least 1 for a batch of nothing.
    """

    def constant(kind: str, values: list[int] | int) -> str:
        return add_constant(graph, f"{mask}_trim_{kind}", np.array(values, np.int64))

    def node(kind: str, inputs: list[str], **attributes: Any) -> str:
        result = fresh(graph, f"{mask}_trim_{kind}_{len(nodes)}")
        nodes.append(helper.make_node(kind, inputs, [result], name=result, **attributes))
        return result

    nodes: list[onnx.NodeProto] = []
    first, flat = constant("first", [1]), constant("flat", [-1])
    sizes = node("Shape", [mask])
    length = node("Gather", [sizes, constant("axis", 1)], axis=0)
    one = constant("one", 1)
    positions = node("Range", [one, node("Add", [length, one]), one])
    used = node("Cast", [node("Cast", [mask], to=TensorProto.BOOL)], to=TensorProto.INT64)
    ends = node("Reshape", [node("Mul", [used, positions]), flat])
    last = node("ReduceMax", [node("Concat", [ends, first], axis=0)], keepdims=0)
    lengths = constant("lengths", list(buckets))
    fits = node("Where", [node("GreaterOrEqual", [lengths, last]), lengths, constant("all", _LAST)])
    end = node("Reshape", [node("ReduceMin", [fits], keepdims=0), first])
    start, axis = constant("start", [0]), constant("axes", [1])
    cuts = {name: node("Slice", [name, start, end, axis]) for name in names}
    at_first, slices = nodes[: -len(names)], {item.output[0]: item for item in nodes[-len(names) :]}
    for name, result in cuts.items():
        insert_before_use(graph, name, [slices[result]], result)
    # After the renaming: these read the inputs as they were sent.
    replace_nodes(graph, [*at_first, *graph.node])
    graph.ClearField("value_info")
