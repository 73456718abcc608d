"""Tiny ONNX models with weights in other files, for tests of what is opened and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

__all__ = ["ROWS", "WEIGHTS", "external", "save", "weights_file"]

ROWS, COLUMNS = 4, 3
WEIGHTS = np.arange(ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS)


def external(place: str, name: str = "W", **words: str) -> TensorProto:
    """A 4 × 3 f32 tensor whose values are said to lie at `place`."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[ROWS, COLUMNS])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": place, **words}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def weights_file(path: Path) -> Path:
    """Write the values of `WEIGHTS`, 48 bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(WEIGHTS.tobytes())
    return path


def save(path: Path, *tensors: TensorProto, nodes: list[onnx.NodeProto] | None = None, opset: int = 17) -> Path:
    """Write y = x · W, or a graph of `nodes` from x [n, 4] to y [n, 3], without any check."""
    graph = helper.make_graph(
        nodes or [helper.make_node("MatMul", ["x", "W"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", ROWS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", COLUMNS])],
        list(tensors),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path
