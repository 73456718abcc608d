"""Static quantization to int8: scales fixed from calibration data, as quantize-dequantize (QDQ) pairs in standard
ONNX.

Weights are signed and per channel, activations unsigned and per tensor, ranges by minimum and maximum (Jacob et
al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"). It
promises nothing about accuracy: some models survive this, some are ruined, and measuring tells which.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, final

from hasten.data.dataset import Samples
from hasten.data.feed import feed
from hasten.model.base import Model
from hasten.spec.signature import Signature
from hasten.transform.base import Options, Task, Transform

__all__ = ["SAMPLES", "QuantizeStatic"]

SAMPLES = 64
_FLOATS = {"Conv", "MatMul", "Gemm"}


@final
class QuantizeStatic(Transform):
    """Quantize weights and activations. Options: `samples`, the largest number of calibration samples (default
    64).
    """

    name = "quantize_static"
    promise = "approximate"

    defaults = {"samples": SAMPLES}

    def requires(self, model: Model, options: Options) -> str | None:
        """Something to quantize, not quantized yet, and an operator set that knows per-channel scales."""
        operators = model.operators()
        if any(name.startswith(("QuantizeLinear", "QLinear")) for name in operators):
            return "the model is quantized already."
        if not _FLOATS & set(operators):
            return "the model has no convolution and no matrix product."
        if model.opset < 13:
            return f"per-channel quantization needs operator set 13, the model uses {model.opset}."
        return None

    def apply(self, task: Task) -> None:
        """Run ONNX Runtime's quantizer, quietly, on at most `samples` calibration samples."""
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        count = min(int(task.options["samples"]), len(task.calibration))
        reader = _reader(task.model.signature, task.calibration, count)
        with _quiet(), tempfile.TemporaryDirectory(prefix="hasten-quantize-") as folder:
            prepared = Path(folder) / "prepared.onnx"
            _prepare(task.model.path, prepared)
            quantize_static(
                str(prepared),
                str(task.out),
                reader,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                weight_type=QuantType.QInt8,
                activation_type=QuantType.QUInt8,
                calibrate_method=CalibrationMethod.MinMax,
                # One sample at a time, ranges merged: otherwise every activation of every sample stays in memory. The
                # option that bounds intermediate outputs is not for this: it throws samples away (onnxruntime 1.32).
                extra_options={"CalibStridedMinMax": 1},
            )


def _prepare(source: Path, out: Path) -> None:
    """Write shapes into the graph, which the quantizer needs to find what it may quantize."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(str(source), str(out), skip_optimization=True, skip_symbolic_shape=False, auto_merge=True)


def _reader(signature: Signature, calibration: Samples, count: int) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        """Feeds calibration samples of the range that the calibrator asks for."""

        def __init__(self) -> None:
            self.set_range(0, count)

        def __len__(self) -> int:
            return count

        def set_range(self, start_index: int, end_index: int) -> None:
            """Begin anew with the samples of one stride."""
            self._samples: Iterator[dict[str, Any]] = (
                feed(signature, [calibration.inputs(i)]) for i in range(start_index, end_index)
            )

        def get_next(self) -> Any:
            """Return the next sample, or None at the end."""
            return next(self._samples, None)

    return Reader()


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """The quantizer logs and prints hints that are not for our users; warnings of the root logger included."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
