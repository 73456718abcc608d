"""Weight-only quantization: weights of matrix products in 8 or 4 bits, arithmetic in float.

It saves memory and memory traffic, which is what bounds large matrix products at batch 1. Two forms: `nbits` packs
blocks of weights for ONNX Runtime's MatMulNBits; `dequantize` writes standard DequantizeLinear nodes in front of the
weights, which every ONNX engine reads (8 bits, one scale a column). Source: round-to-nearest with one scale a block, as
in the baselines of Dettmers et al. 2022, "LLM.int8()", and Frantar et al. 2023, "GPTQ".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hasten.model.base import Model
from hasten.model.onnx_file import save_proto
from hasten.transform.base import Options, Task, Transform, TransformFailed
from hasten.transform.onnx_graph import (
    add_constant,
    consumers,
    drop_unused,
    graph_of,
    is_quantized,
    load,
    name_nodes,
    replace_nodes,
    site_names,
    weights_of,
)
from hasten.transform.ort_quantizer import quiet

__all__ = ["QuantizeWeights"]

_FORMS = ("nbits", "dequantize")


@final
class QuantizeWeights(Transform):
    """Quantize weights of MatMul and Gemm nodes.

    Options: `bits` 8 or 4; `form` nbits or dequantize; `block`, weights that share a scale (nbits); `symmetric`;
    `accuracy_level` 0 to 4 of MatMulNBits: 4 lets it multiply in int8; `embeddings` too (Gather on a float table,
    8 bits).
    """

    name = "quantize_weights"
    promise = "approximate"
    defaults = {
        "bits": 8,
        "form": "nbits",
        "block": 32,
        "symmetric": True,
        "accuracy_level": 0,
        "embeddings": False,
    }

    def requires(self, model: Model, options: Options) -> str | None:
        """A weight to quantize, in a model that is not quantized yet."""
        if options["form"] not in _FORMS or options["bits"] not in (4, 8):
            return "form is nbits or dequantize, bits are 4 or 8."
        if options["form"] == "dequantize" and options["bits"] != 8:
            return "the form dequantize takes 8 bits only."
        if is_quantized(model):
            return "the model is quantized already."
        if model.opset < 13:
            return f"it needs operator set 13, the model uses {model.opset} (raise_opset first)."
        if not self.sites(model, options):
            return "the model has no matrix product with a constant f32 matrix."
        return None

    def sites(self, model: Model, options: Options) -> Sequence[str]:
        """MatMul and, for the form that takes them, Gemm and Gather nodes with a constant f32 matrix."""
        graph = graph_of(model)
        constants = weights_of(graph)
        return [name for name, node in site_names(graph).items() if _place(node, options) in _matrices(constants)]

    def apply(self, task: Task) -> None:
        """Replace the weights of every site that is not to be skipped."""
        proto = load(task.model)
        name_nodes(proto.graph)
        wanted = set(self.sites(task.model, task.options)) - task.skip
        if task.options["form"] == "nbits":
            proto = _packed(proto, wanted, task.options)
            if task.options["embeddings"]:
                gathers = {node.name for node in proto.graph.node if node.op_type == "Gather"}
                _dequantized(proto, wanted & gathers, task.options)
        else:
            _dequantized(proto, wanted, task.options)
        save_proto(proto, task.out)


def _matrices(constants: dict[str, onnx.TensorProto]) -> set[str]:
    return {name for name, t in constants.items() if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 2}


def _place(node: onnx.NodeProto, options: Options) -> str | None:
    """The name of the operand that holds the matrix, for kinds of nodes that are to be quantized."""
    kinds = {"MatMul": 1}
    if options["form"] == "dequantize":
        kinds["Gemm"] = 1
    if options["embeddings"]:
        kinds["Gather"] = 0
    at = kinds.get(node.op_type)
    return node.input[at] if at is not None and len(node.input) > at else None


def _packed(proto: onnx.ModelProto, wanted: set[str], options: Options) -> onnx.ModelProto:
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    others = [node.name for node in proto.graph.node if node.op_type == "MatMul" and node.name not in wanted]
    level = int(options["accuracy_level"])
    with quiet():
        quantizer: Any = MatMulNBitsQuantizer(
            proto,
            nodes_to_exclude=others,
            algo_config=DefaultWeightOnlyQuantConfig(
                block_size=int(options["block"]),
                is_symmetric=bool(options["symmetric"]),
                accuracy_level=level or None,
                bits=int(options["bits"]),
            ),
        )
        quantizer.process()
    packed: onnx.ModelProto = quantizer.model.model
    if not any(node.op_type == "MatMulNBits" for node in packed.graph.node):
        raise TransformFailed("quantize_weights does not apply: ONNX Runtime packed no matrix of this model.")
    return packed


def _dequantized(proto: onnx.ModelProto, wanted: set[str], options: Options) -> None:
    """Put int8 weights and a DequantizeLinear in front of each site; a weight that several share is done once."""
    graph = proto.graph
    constants = weights_of(graph)
    sites = [node for node in graph.node if node.name in wanted]
    shared = {_place(node, options) for node in sites}
    readers = consumers(graph)
    made: list[onnx.NodeProto] = []
    for name in sorted(item for item in shared if item):
        kinds = {node.op_type for node in readers[name]}
        axis = 0 if kinds == {"Gather"} else _output_axis(readers[name])
        values, scales = _rounded(numpy_helper.to_array(constants[name]), axis)
        stored = [
            add_constant(graph, f"{name}/int8", values),
            add_constant(graph, f"{name}/scale", scales),
            add_constant(graph, f"{name}/zero", np.zeros(scales.shape, np.int8)),
        ]
        made.append(helper.make_node("DequantizeLinear", stored, [f"{name}/f32"], name=f"{name}/dequantize", axis=axis))
        for node in sites:
            node.input[:] = [f"{name}/f32" if item == name else item for item in node.input]
    replace_nodes(graph, [*made, *graph.node])
    drop_unused(graph)


def _output_axis(readers: Sequence[onnx.NodeProto]) -> int:
    """The axis of a matrix along which outputs lie: the last, or the first where Gemm transposes it."""
    turned = any(a.name == "transB" and a.i for node in readers if node.op_type == "Gemm" for a in node.attribute)
    return 0 if turned else 1


def _rounded(weights: np.ndarray[Any, Any], axis: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Symmetric int8 with one scale for each slice along `axis`."""
    largest = np.abs(weights).max(axis=1 - axis)
    scales = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
    shape = (-1, 1) if axis == 0 else (1, -1)
    return np.clip(np.rint(weights / scales.reshape(shape)), -127, 127).astype(np.int8), scales
