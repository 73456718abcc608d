"""Cast to f16: weights and arithmetic in half precision, inputs and outputs as they were.

For devices with half-precision units. Numbers beyond 65504 overflow, so nodes that read or write such numbers on
calibration samples stay in f32, and so do operators that are known for it. They cannot be found by running the result
here: where a processor has no f16 arithmetic, the engine computes in f32 and hides what a device would show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import onnx

from hasten.data.dataset import Samples
from hasten.model.base import Model
from hasten.model.onnx_file import save_proto
from hasten.transform.base import Options, Task, Transform
from hasten.transform.calibrate import calibrate
from hasten.transform.onnx_graph import drop_unused, element_types, graph_of, is_quantized, site_names, weights_of
from hasten.transform.ort_quantizer import named_with_shapes, quiet

__all__ = ["CastF16"]

# Sums over many terms, exponentials and integer arithmetic in disguise.
_STAY = (
    "ArrayFeatureExtractor", "Binarizer", "CastMap", "CategoryMapper", "DictVectorizer", "FeatureVectorizer", "Imputer",
    "LabelEncoder", "LinearClassifier", "LinearRegressor", "Normalizer", "OneHotEncoder", "RandomUniformLike",
    "SVMClassifier", "SVMRegressor", "Scaler", "TreeEnsembleClassifier", "TreeEnsembleRegressor", "ZipMap",
    "NonMaxSuppression", "TopK", "RoiAlign", "Resize", "Range", "CumSum", "Min", "Max", "Upsample", "If", "Loop",
    "Scan",
)  # fmt: skip

# Half of the largest f16 number: other samples may be larger.
_LARGEST = 65504 / 2
_PROBED = 16
_FEW = 5


@final
class CastF16(Transform):
    """Convert f32 to f16 inside the graph. Options: `stay`, further operator types to leave in f32, comma-separated."""

    name = "cast_f16"
    promise = "close"
    defaults = {"stay": ""}

    def requires(self, model: Model, options: Options) -> str | None:
        """f32 arithmetic, in a model that is not quantized."""
        if is_quantized(model):
            return "the model is quantized already."
        if not any(tensor.data_type == onnx.TensorProto.FLOAT for tensor in graph_of(model).initializer):
            return "the model has no f32 weights in initializers (fold first if they stand in Constant nodes)."
        return None

    def sites(self, model: Model, options: Options) -> Sequence[str]:
        """All nodes whose type may be cast."""
        stay = _stay(options)
        return [n for n, node in site_names(graph_of(model)).items() if node.op_type not in stay | {"Constant"}]

    def apply(self, task: Task) -> None:
        """Convert with ONNX Runtime's converter, which puts casts where f32 and f16 meet."""
        from onnxruntime.quantization.onnx_model import ONNXModel
        from onnxruntime.transformers.float16 import convert_float_to_float16

        proto = named_with_shapes(task.model)
        large = _overflowing(proto, task.calibration)
        if large:
            more = f" and {len(large) - _FEW} more" if len(large) > _FEW else ""
            task.notes.append(f"Numbers near or beyond 65504 keep in f32: {', '.join(large[:_FEW])}{more}.")
        with quiet():
            cast: Any = convert_float_to_float16(
                proto,
                keep_io_types=True,
                disable_shape_infer=True,
                op_block_list=sorted(_stay(task.options)),
                node_block_list=sorted({*task.skip, *large}),
            )
        ONNXModel(cast).topological_sort()
        _cancel_round_trips(cast.graph)
        # Value information of before says f32 where there is f16 now.
        del cast.graph.value_info[:]
        save_proto(cast, task.out)


def _overflowing(proto: onnx.ModelProto, samples: Samples) -> list[str]:
    """Names of the nodes that read or write numbers which are too large, by calibration samples."""
    constants, types = weights_of(proto.graph), element_types(proto.graph)
    outputs = [name for node in proto.graph.node for name in node.output if types.get(name) == onnx.TensorProto.FLOAT]
    names = [name for name in outputs if name not in constants]
    found = calibrate(proto, names, samples, count=min(_PROBED, len(samples)), method="minmax", percentile=100.0)
    # A tensor without any finite number in it is too large as well.
    large = {n for n in names if n not in found or max(abs(found[n][0]), abs(found[n][1])) > _LARGEST}
    return [node.name for node in proto.graph.node if large & {*node.input, *node.output}]


def _cancel_round_trips(graph: onnx.GraphProto) -> None:
    """Between two nodes that stay in f32 the converter casts to f16 and back, which overflows all the same."""
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}

    def target(node: onnx.NodeProto) -> int:
        return next(item.i for item in node.attribute if item.name == "to")

    origin: dict[str, str] = {}
    for name, node in casts.items():
        inner = casts.get(node.input[0])
        if inner is not None and target(node) == onnx.TensorProto.FLOAT and target(inner) == onnx.TensorProto.FLOAT16:
            origin[name] = inner.input[0]
    for node in graph.node:
        node.input[:] = [origin.get(name, name) for name in node.input]
    drop_unused(graph)


def _stay(options: Options) -> set[str]:
    return {*_STAY, *(name.strip() for name in str(options["stay"]).split(",") if name.strip())}
