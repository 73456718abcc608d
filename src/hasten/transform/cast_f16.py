"""Cast to f16: weights and arithmetic in half precision, inputs and outputs as they were.

For devices with half-precision units. Numbers beyond 65504 overflow, so operators that are known to overflow stay in
f32 from the start; where an answer is no longer finite, or too far off, the base finds the guilty nodes and leaves
these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import onnx

from hasten.model.base import Model
from hasten.model.onnx_file import save_proto
from hasten.transform.base import Options, Task, Transform
from hasten.transform.onnx_graph import graph_of, is_quantized, site_names
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
        with quiet():
            cast: Any = convert_float_to_float16(
                proto,
                keep_io_types=True,
                disable_shape_infer=True,
                op_block_list=sorted(_stay(task.options)),
                node_block_list=sorted(task.skip),
            )
        ONNXModel(cast).topological_sort()
        # Value information of before says f32 where there is f16 now.
        del cast.graph.value_info[:]
        save_proto(cast, task.out)


def _stay(options: Options) -> set[str]:
    return {*_STAY, *(name.strip() for name in str(options["stay"]).split(",") if name.strip())}
