"""Dynamic quantization: int8 weights on disk, activations quantized anew for each input. Needs no calibration data.

It pays where matrix products with large weights dominate (transformers, recurrent networks). Convolutions are left
alone unless asked for: dynamically quantized ones (ConvInteger) run on a slow path in every engine known to us.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import final

from hasten.model.base import Model
from hasten.model.onnx_file import save_proto
from hasten.transform.base import Options, Task, Transform
from hasten.transform.onnx_graph import graph_of, is_quantized, site_names, weights_of
from hasten.transform.ort_quantizer import named_with_shapes, quiet

__all__ = ["QuantizeDynamic"]

_KINDS = ("MatMul", "Gemm", "Attention", "LSTM", "GRU", "EmbedLayerNormalization")


@final
class QuantizeDynamic(Transform):
    """Quantize weights of matrix products. Options: `per_channel`; `reduce_range` (7-bit weights, for x86 without
    VNNI); `convolutions` too.
    """

    name = "quantize_dynamic"
    promise = "approximate"
    defaults = {"per_channel": True, "reduce_range": False, "convolutions": False}

    def requires(self, model: Model, options: Options) -> str | None:
        """A weight to quantize, in a model that is not quantized yet."""
        if is_quantized(model):
            return "the model is quantized already."
        if model.opset < 11:
            return f"dynamic quantization needs operator set 11, the model uses {model.opset} (raise_opset first)."
        if not self.sites(model, options):
            return "the model has no matrix product with constant weights."
        return None

    def sites(self, model: Model, options: Options) -> Sequence[str]:
        """Nodes of the kinds to quantize with a constant operand."""
        graph = graph_of(model)
        constants = weights_of(graph)
        kinds = (*_KINDS, "Conv") if options["convolutions"] else _KINDS
        return [
            name
            for name, node in site_names(graph).items()
            if node.op_type in kinds and any(item in constants for item in node.input[1:])
        ]

    def apply(self, task: Task) -> None:
        """Run ONNX Runtime's quantizer, quietly."""
        from onnxruntime.quantization import QuantType, quantize_dynamic

        wanted = [name for name in self.sites(task.model, task.options) if name not in task.skip]
        with quiet(), tempfile.TemporaryDirectory(prefix="hasten-quantize-") as folder:
            named, out = Path(folder) / "named.onnx", Path(folder) / "out.onnx"
            save_proto(named_with_shapes(task.model), named)
            quantize_dynamic(
                named,
                out,
                # The quantizer takes Gemm nodes apart first, and names the product so.
                nodes_to_quantize=[*wanted, *(f"{name}_MatMul" for name in wanted)],
                per_channel=bool(task.options["per_channel"]),
                reduce_range=bool(task.options["reduce_range"]),
                weight_type=QuantType.QInt8,
                use_external_data_format=len(list(Path(folder).iterdir())) > 1,
                extra_options={"MatMulConstBOnly": True},
            )
            import onnx

            save_proto(onnx.load_model(str(out)), task.out)
