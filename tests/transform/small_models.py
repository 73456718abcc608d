"""Small models that techniques on numbers apply to: convolutions, and matrix products with a table of embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hasten.data import Dataset
from hasten.data.dataset import Samples

__all__ = ["SAMPLES", "images", "matrices", "quantized", "save", "small_convolutions"]

SAMPLES = 12


def save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, np.ndarray]) -> Path:
    """Write a model of operator set 17."""
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "small", inputs, outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def small_convolutions(path: Path, *, outlier: float = 1.0) -> Path:
    """image [n, 3, 16, 16] -> conv 8, ReLU, conv 8, ReLU, mean, Gemm -> y [n, 5]. `outlier` scales one channel."""
    rng = np.random.default_rng(0)
    first = rng.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32)
    first[0] *= outlier
    second = rng.normal(0, 0.2, (8, 8, 3, 3)).astype(np.float32)
    # What the outlier channel brings is scaled back, so that the answers stay what they were.
    second[:, 0] /= outlier
    weights = {
        "w1": first,
        "b1": np.zeros(8, np.float32),
        "w2": second,
        "b2": rng.normal(0, 0.1, 8).astype(np.float32),
        "w3": rng.normal(0, 1, (8, 5)).astype(np.float32),
        "b3": np.zeros(5, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="second", pads=[1] * 4),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu"),
        helper.make_node("ReduceMean", ["r2"], ["m"], name="mean", axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["m", "w3", "b3"], ["y"], name="head"),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 16, 16])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])]
    return save(path, nodes, inputs, outputs, weights)


def images(count: int = SAMPLES) -> Samples:
    """Samples for `small_convolutions`."""
    values = np.random.default_rng(1).normal(size=(count, 3, 16, 16)).astype(np.float32)
    return Dataset(inputs={"image": values}).subset(range(count))


def matrices(folder: Path) -> tuple[Path, Samples]:
    """tokens [n, 6] -> table of 50 x 64, two matrix products with bias, mean over tokens, Gemm -> y [n, 4]."""
    rng = np.random.default_rng(0)
    weights = {
        "table": rng.normal(0, 1, (50, 64)).astype(np.float32),
        "w1": rng.normal(0, 0.15, (64, 96)).astype(np.float32),
        "b1": np.zeros(96, np.float32),
        "w2": rng.normal(0, 0.15, (96, 64)).astype(np.float32),
        "w3": rng.normal(0, 0.3, (4, 64)).astype(np.float32),
        "b3": np.zeros(4, np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["e"], name="embed"),
        helper.make_node("MatMul", ["e", "w1"], ["h1"], name="up"),
        helper.make_node("Add", ["h1", "b1"], ["a1"], name="bias"),
        helper.make_node("Relu", ["a1"], ["r1"], name="relu"),
        helper.make_node("MatMul", ["r1", "w2"], ["h2"], name="down"),
        helper.make_node("ReduceMean", ["h2"], ["m"], name="mean", axes=[1], keepdims=0),
        helper.make_node("Gemm", ["m", "w3", "b3"], ["y"], name="head", transB=1),
    ]
    inputs = [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["n", 6])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])]
    path = save(folder / "matrices.onnx", nodes, inputs, outputs, weights)
    tokens = np.random.default_rng(1).integers(0, 50, (SAMPLES, 6))
    return path, Dataset(inputs={"tokens": tokens}).subset(range(SAMPLES))


def quantized(folder: Path) -> tuple[Path, Samples]:
    """A model that holds a QuantizeLinear already: every quantizer refuses it."""
    weights = {"s": np.float32(0.1), "z": np.uint8(128), "w": np.ones((4, 3), np.float32)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])]
    path = save(folder / "quantized.onnx", nodes, inputs, outputs, weights)
    return path, Dataset(inputs={"x": np.zeros((4, 4), np.float32)}).subset(range(4))
