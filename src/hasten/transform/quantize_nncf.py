"""Static quantization by NNCF, OpenVINO's own quantizer: int8 with bias correction, placed where its kernels fuse.

Takes ONNX and gives ONNX or OpenVINO's format; takes TFLite and OpenVINO's format and gives OpenVINO's. What it does
not quantize for its own reasons (shapes, patterns that a kernel fuses) stays in float. Source: Kozlov et al. 2020,
"Neural Network Compression Framework for fast model inference".
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Generator, Sequence
from typing import Any, final

import onnx

from hasten.data.feed import feed
from hasten.model.base import Model
from hasten.model.onnx_file import save_proto
from hasten.spec.target import Format
from hasten.transform.base import Options, Task, Transform, TransformFailed
from hasten.transform.onnx_graph import graph_of, is_quantized, load, name_nodes, site_names
from hasten.transform.openvino_graph import network_of

__all__ = ["QuantizeNncf"]

_FLOATS = {"Conv", "MatMul", "Gemm", "ConvTranspose"}
_PRESETS = ("performance", "mixed")


@final
class QuantizeNncf(Transform):
    """Quantize with NNCF.

    Options: `result`, what an ONNX model becomes, onnx or openvino; `preset` performance (symmetric activations) or
    mixed; `samples`; `fast_bias_correction`; `reduce_range`, 7-bit weights, for x86 processors without VNNI, whose
    16-bit sums saturate; `transformer`, which tells NNCF to treat the model as one (smooth quantization of
    activations with outliers).
    """

    name = "quantize_nncf"
    promise = "approximate"
    formats: frozenset[Format] = frozenset({"onnx", "tflite", "openvino"})
    defaults = {
        "result": "onnx",
        "preset": "mixed",
        "samples": 128,
        "fast_bias_correction": True,
        "reduce_range": False,
        "transformer": False,
    }

    def result_format(self, model: Model, options: Options) -> Format:
        """ONNX stays ONNX unless the option says otherwise; everything else becomes OpenVINO's format."""
        return "onnx" if model.format == "onnx" and options["result"] == "onnx" else "openvino"

    def requires(self, model: Model, options: Options) -> str | None:
        """Something to quantize, not quantized yet."""
        if options["result"] not in ("onnx", "openvino"):
            return "result is onnx or openvino."
        if options["preset"] not in _PRESETS:
            return f"preset is {' or '.join(_PRESETS)}."
        if model.format != "onnx":
            return "the model is quantized already." if "FakeQuantize" in model.operators() else None
        if is_quantized(model):
            return "the model is quantized already."
        if not _FLOATS & set(model.operators()):
            return "the model has no convolution and no matrix product."
        if model.opset < 13:
            return f"per-channel quantization needs operator set 13, the model uses {model.opset} (raise_opset first)."
        return None

    def sites(self, model: Model, options: Options) -> Sequence[str]:
        """Convolutions and matrix products of an ONNX model; other formats are quantized as a whole."""
        if model.format != "onnx":
            return ()
        return [name for name, node in site_names(graph_of(model)).items() if node.op_type in _FLOATS]

    def apply(self, task: Task) -> None:
        """Quantize on calibration samples, quietly."""
        import nncf
        from nncf.quantization.advanced_parameters import OverflowFix

        source = _source(task.model, self.result_format(task.model, task.options))
        count = min(int(task.options["samples"]), len(task.calibration))

        def sample(index: int) -> dict[str, Any]:
            """Read when NNCF asks for it, so that samples are not all in memory."""
            return feed(task.model.signature, [task.calibration.inputs(index)])

        with _quiet():
            quantized: Any = nncf.quantize(
                source,
                nncf.Dataset(range(count), sample),
                preset=nncf.QuantizationPreset(str(task.options["preset"])),
                subset_size=count,
                fast_bias_correction=bool(task.options["fast_bias_correction"]),
                model_type=nncf.ModelType.TRANSFORMER if task.options["transformer"] else None,
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    overflow_fix=OverflowFix.ENABLE if task.options["reduce_range"] else OverflowFix.FIRST_LAYER
                ),
                ignored_scope=nncf.IgnoredScope(names=_names(task.skip), validate=False) if task.skip else None,
            )
        _write(quantized, task)


def _source(model: Model, result: Format) -> Any:
    """The model as NNCF takes it, in the format that is to come out."""
    if result == "openvino":
        return network_of(model)
    proto = load(model)
    name_nodes(proto.graph)
    return proto


def _names(skip: frozenset[str]) -> list[str]:
    """OpenVINO takes a convolution's bias apart: the sum keeps the name of both."""
    return sorted({*skip, *(f"{name}/WithoutBiases" for name in skip)})


def _write(quantized: Any, task: Task) -> None:
    if isinstance(quantized, onnx.ModelProto):
        if not any(node.op_type == "QuantizeLinear" for node in quantized.graph.node):
            raise TransformFailed("quantize_nncf does not apply: NNCF found nothing in this model to quantize.")
        save_proto(quantized, task.out)
        return
    import openvino as ov

    if not any(op.get_type_name() == "FakeQuantize" for op in quantized.get_ops()):
        raise TransformFailed("quantize_nncf does not apply: NNCF found nothing in this model to quantize.")
    ov.save_model(quantized, str(task.out), compress_to_fp16=False)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """NNCF logs at INFO, draws progress bars, and reports usage unless it is told not to."""
    os.environ.setdefault("NNCF_TELEMETRY", "0")
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
