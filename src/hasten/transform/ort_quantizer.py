"""The quantizers of ONNX Runtime, made quiet, and what they need: shapes in the graph, names on the nodes."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Generator
from pathlib import Path

import onnx

from hasten.model.base import Model
from hasten.model.onnx_file import save_proto
from hasten.transform.onnx_graph import load, name_nodes

__all__ = ["named_with_shapes", "quiet"]


def named_with_shapes(model: Model) -> onnx.ModelProto:
    """The model with a name on every node and shapes on every tensor, as far as they can be found."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    proto = load(model)
    name_nodes(proto.graph)
    with quiet(), tempfile.TemporaryDirectory(prefix="hasten-quantize-") as folder:
        named, prepared = Path(folder) / "named.onnx", Path(folder) / "prepared.onnx"
        save_proto(proto, named)
        large = len(list(Path(folder).iterdir())) > 1
        try:
            quant_pre_process(
                str(named),
                str(prepared),
                skip_optimization=True,
                auto_merge=True,
                save_as_external_data=large,
                all_tensors_to_one_file=True,
                external_data_location="prepared.data",
            )
            return onnx.load_model(str(prepared))
        except Exception:
            # Symbolic inference gives up on some valid graphs. Without it, plain inference finds what it can, and
            # the quantizer leaves alone what has no type.
            return onnx.shape_inference.infer_shapes(proto) if not large else proto


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """The quantizers log and print hints that are not for our users; warnings of the root logger included."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
