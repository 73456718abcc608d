"""Move preprocessing into the graph: the model then takes uint8 pixels, channels last, as decoders give them.

A client sends a quarter of the bytes, and normalization runs in the engine. The division by the deviation goes into the
first convolution's weights where that is all that reads the input. The mean goes there only where the convolution does
not pad: it pads with normalized zeros, which are the mean's pixels and not zero pixels.
"""

from __future__ import annotations

from typing import final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hasten.data.dataset import Arrays
from hasten.model.base import Model
from hasten.model.onnx_file import OnnxModel, save_proto
from hasten.spec.preprocess import Preprocess
from hasten.spec.tensor import TensorSpec
from hasten.transform.base import Options, Task, Transform, TransformFailed
from hasten.transform.fold_affine import affine_before
from hasten.transform.graph import Graph
from hasten.transform.onnx_graph import load, subgraph_inputs
from hasten.transform.rewrite import Change, rewrite

__all__ = ["FoldPreprocess", "preprocess_of"]


def preprocess_of(options: Options, only_input: str = "") -> Preprocess:
    """The preprocessing that options describe, for `only_input` where they name none."""
    mean, std = _numbers(options, "mean"), _numbers(options, "std")
    count = max(len(mean), len(std))
    if {len(mean), len(std)} - {1, count} or not all(std):
        raise TransformFailed(
            f"fold_preprocess cannot use mean={options['mean']!r} with std={options['std']!r}.",
            remedy="Give one number, or one for each channel, of both; no deviation may be 0.",
        )
    return Preprocess(
        input=str(options["input"]) or only_input,
        mean=mean * (count // len(mean)),
        std=std * (count // len(std)),
        channels_first=bool(options["channels_first"]),
    )


@final
class FoldPreprocess(Transform):
    """Pixels in place of the normalized input: cast, mean, deviation and layout become part of the graph.

    Options have the meaning of `hasten.spec.preprocess.Preprocess`, whose `options` gives them; numbers are separated
    by commas, in the units of pixels. Without `input`, the model must have one input only.
    """

    name = "fold_preprocess"
    # Samples that did not come from whole pixels are rounded to the nearest ones.
    promise = "close"
    changes_interface = True

    defaults = {"input": "", "mean": "0", "std": "255", "channels_first": True}

    def requires(self, model: Model, options: Options) -> str | None:
        """An f32 input of rank four whose channels match the options."""
        inputs = model.signature.inputs
        preprocess = preprocess_of(options, inputs[0].name if len(inputs) == 1 else "")
        if not preprocess.input:
            return f"the model has {len(inputs)} inputs: name one with the option input."
        spec = model.signature.input(preprocess.input)
        if spec is None:
            return f"the model has no input {preprocess.input!r}."
        assert isinstance(model, OnnxModel), "the base lets only the declared formats through"
        if any(preprocess.input in subgraph_inputs(node) for node in model.proto.graph.node):
            return f"a subgraph reads the input {preprocess.input!r}."
        return _misfit(spec, preprocess)

    def adapt(self, sample: Arrays, options: Options) -> Arrays:
        """Pixels in place of the normalized values."""
        preprocess = preprocess_of(options, next(iter(sample)))
        return {**sample, preprocess.input: preprocess.undo(np.asarray(sample[preprocess.input]))}

    def apply(self, task: Task) -> None:
        """Put the nodes before everything that read the input, and fold what is exact into convolutions."""
        assert isinstance(task.model, OnnxModel), "the base lets only the declared formats through"
        preprocess = preprocess_of(task.options, task.model.signature.inputs[0].name)
        proto = load(task.model)
        made = _prepend(proto.graph, preprocess)
        graph = Graph(proto, task.model)

        def rule(graph: Graph, anchor: onnx.NodeProto) -> Change | None:
            ours = any(name in made for name in anchor.input)
            return affine_before(graph, anchor) if ours else None

        folded = len(rewrite(graph, [rule]))
        task.notes.append(
            f"{preprocess.input} takes uint8 pixels, channels last: {len(made) - folded} nodes were added"
            + (f"; {folded} of the steps went into the first convolution's weights." if folded else ".")
        )
        save_proto(graph.finish(), task.out)


def _numbers(options: Options, name: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in str(options[name]).split(","))
    except ValueError as error:
        raise TransformFailed(
            f"fold_preprocess cannot read {name}={options[name]!r}.", remedy="Write numbers separated by commas."
        ) from error
    return found


def _misfit(spec: TensorSpec, preprocess: Preprocess) -> str | None:
    if spec.dtype != "FP32" or len(spec.shape) != 4:
        return f"the input {spec.name!r} is no f32 image batch: it is {spec.dtype} with {len(spec.shape)} dimensions."
    channels = spec.shape[1 if preprocess.channels_first else 3]
    if isinstance(channels, int) and len(preprocess.mean) not in (1, channels):
        return f"the input {spec.name!r} has {channels} channels, the options {len(preprocess.mean)}."
    return None


def _prepend(graph: onnx.GraphProto, preprocess: Preprocess) -> set[str]:
    """Put the steps before all nodes, and return the names of what they make."""
    name = preprocess.input
    value = next(item for item in graph.input if item.name == name)
    taken = {output for node in graph.node for output in node.output} | {tensor.name for tensor in graph.initializer}
    names = [f"{name}/{word}" for word in ("channels_first", "f32", "centred", "normalized")]
    while taken & set(names):
        names = [f"{one}_" for one in names]
    for node in graph.node:
        for place, read in enumerate(node.input):
            if read == name:
                node.input[place] = names[-1]
    for item in graph.output:
        assert item.name != name, "an output that is an input is made by an Identity"
    nodes, current = list[onnx.NodeProto](), name
    if preprocess.channels_first:
        nodes.append(helper.make_node("Transpose", [name], [names[0]], name=names[0], perm=[0, 3, 1, 2]))
        current = names[0]
        _channels_last(value)
    value.type.tensor_type.elem_type = TensorProto.UINT8
    nodes.append(helper.make_node("Cast", [current], [names[1]], name=names[1], to=TensorProto.FLOAT))
    nodes += _normalization(graph, preprocess, names)
    made = {node.output[0] for node in nodes}
    nodes += [_copy(node) for node in graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return made


def _normalization(graph: onnx.GraphProto, preprocess: Preprocess, names: list[str]) -> list[onnx.NodeProto]:
    shape = (-1, 1, 1) if preprocess.channels_first else (-1,)
    nodes = list[onnx.NodeProto]()
    for operator, values, source, output in (
        ("Sub", preprocess.mean, names[1], names[2]),
        ("Div", preprocess.std, names[2], names[3]),
    ):
        constant = f"{output}/{operator.lower()}"
        array = np.array(values, np.float32).reshape(shape)
        graph.initializer.append(numpy_helper.from_array(array, constant))
        nodes.append(helper.make_node(operator, [source, constant], [output], name=output))
    return nodes


def _channels_last(value: onnx.ValueInfoProto) -> None:
    shape = value.type.tensor_type.shape
    dims = [_copy_dim(shape.dim[axis]) for axis in (0, 2, 3, 1)]
    del shape.dim[:]
    shape.dim.extend(dims)


def _copy_dim(dim: onnx.TensorShapeProto.Dimension) -> onnx.TensorShapeProto.Dimension:
    copied = onnx.TensorShapeProto.Dimension()
    copied.CopyFrom(dim)
    return copied


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    return copied
