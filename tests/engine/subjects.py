"""The models of the contract suite, in a format that each engine takes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from tests.conftest import linear_model

from hasten.engine.base import engines
from hasten.spec.tensor import NUMPY_NAMES, DType

__all__ = ["copy_of", "linear_for", "sample_of"]

_ONNX: dict[DType, int] = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16, "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16, "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64, "FP16": TensorProto.FLOAT16, "BF16": TensorProto.BFLOAT16, "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE, "BYTES": TensorProto.STRING,
}  # fmt: skip
_TFLITE: dict[DType, str] = {
    "FP16": "FLOAT16", "BF16": "BFLOAT16", "FP32": "FLOAT32", "FP64": "FLOAT64", "BYTES": "STRING",
}  # fmt: skip


def linear_for(engine: str, folder: Path) -> Path:
    """y = x · W + b: what `subject` in the engine's own tests writes, else the ONNX model of all tests."""
    module = f"tests.engine.test_{engine}"
    if importlib.util.find_spec(module):
        make = getattr(importlib.import_module(module), "subject", None)
        if make is not None:
            return make(folder)
    return linear_model(folder / "linear.onnx")


def copy_of(engine: str, folder: Path, dtype: DType, shape: tuple[int | str, ...] = ("rows", 2)) -> Path:
    """A model that gives back its one input "x", in the format that the engine prefers."""
    formats = engines.get(engine).formats
    if "onnx" in formats:
        return _onnx_copy(folder / "copy.onnx", dtype, shape)
    if "torch" in formats:
        return _torch_copy(folder / "copy.pt2", dtype)
    from tests.engine.tflite import copy

    return copy(folder / "copy.tflite", _TFLITE.get(dtype, dtype))


def sample_of(dtype: DType) -> np.ndarray[Any, Any]:
    """Two rows that a careless conversion would change: extremes, signs, bytes beyond ASCII."""
    if dtype == "BYTES":
        return np.array([[b"a", "grün".encode()], [b"", b"x" * 40]], dtype=object)
    kind = np.dtype(NUMPY_NAMES[dtype])
    if dtype == "BOOL":
        return np.array([[True, False], [False, True]])
    if dtype == "BF16":  # 1, -2, 0.5 and 3.14 by their bits
        return np.array([[0x3F80, 0xC000], [0x3F00, 0x4049]], np.uint16)
    if kind.kind == "f":
        return np.array([[1.5, -2.25], [0.0, 65504.0]], kind)
    # Integers of 64 bits stay within 32, which is all that OpenVINO computes with.
    limits = np.iinfo(np.int32 if kind.itemsize == 8 else kind)
    return np.array([[0, 1], [max(limits.min, 0) if kind.kind == "u" else limits.min, limits.max]], kind)


def _onnx_copy(path: Path, dtype: DType, shape: tuple[int | str, ...]) -> Path:
    x, y = (helper.make_tensor_value_info(name, _ONNX[dtype], shape) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "copy", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def _torch_copy(path: Path, dtype: DType) -> Path:
    import torch

    class Copy(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x.clone()

    from hasten.model.torch_export import export_module

    kinds = {"BF16": torch.bfloat16}
    if dtype in kinds:
        program = torch.export.export(Copy(), (), {"x": torch.zeros((2, 2), dtype=kinds[dtype])})
        torch.export.save(program, str(path))
        return path
    export_module(Copy(), [{"x": np.zeros(2, NUMPY_NAMES[dtype])}], path)
    return path
