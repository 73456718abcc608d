"""Build EfficientNet-Lite0 with a head for Fashion-MNIST: the ImageNet backbone frozen, a linear head trained on its
features.

The graph is written as its paper describes it, from the published weights, with batch normalization in nodes of its
own as exporters leave it. Source: Tan and Le 2019, "EfficientNet"; the Lite variant replaces swish by ReLU6 and drops
squeeze-and-excitation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hasten.spec.progress import Listener, Progress
from hasten.zoo.catalog import FASHION_TRAIN
from hasten.zoo.checkpoint import read_checkpoint
from hasten.zoo.fashion import PREPROCESS, SIDE, Enlarged, images_of, labels_of
from hasten.zoo.probe import fit_classes

__all__ = ["build"]

TRAINED_ON = 4000
CLASSES = 10
# Chosen by cross-validation on the training pictures.
_DECAY = 0.08
_FEATURES = 1280
_BATCH = 16
# Kernel, stride, expansion, output channels, for each block: the seven stages written out.
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
           (1, 3, 1, 6, 320))  # fmt: skip
_EPSILON = 1e-3

Weights = Mapping[str, np.ndarray[Any, Any]]


def build(files: Mapping[str, Path], out: Path, listener: Listener) -> None:
    """Write the classifier: image f32 [n, 3, 224, 224] to logits [n, 10]. Takes about a minute on two free cores."""
    weights = read_checkpoint(files["efficientnet-lite0-weights"])
    features = _features(weights, images_of(files[FASHION_TRAIN[0]])[:TRAINED_ON], listener)
    listener(Progress(stage="training the head"))
    head = fit_classes(
        features, labels_of(files[FASHION_TRAIN[1]])[:TRAINED_ON], CLASSES, decay=_DECAY, common_scale=True
    )
    onnx.save(_Graph(weights).classifier(*head), str(out))


def _features(weights: Weights, images: np.ndarray[Any, Any], listener: Listener) -> np.ndarray[Any, Any]:
    """What the backbone says of each image: f32 [n, 1280]."""
    import onnxruntime as ort

    session: Any = ort.InferenceSession(
        _Graph(weights).backbone().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    samples, rows = Enlarged(images), list[Any]()
    for start in range(0, len(samples), _BATCH):
        batch = [PREPROCESS.apply(samples[index]["image"]) for index in range(start, min(start + _BATCH, len(samples)))]
        rows.append(session.run(None, {"image": np.stack(batch)})[0])
        listener(Progress(stage="features of training images", done=start, total=len(samples)))
    return np.concatenate(rows)


class _Graph:
    """Writes the network node by node."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def backbone(self) -> onnx.ModelProto:
        """From image to features."""
        return self._model(self._body(), "features", _FEATURES)

    def classifier(self, matrix: np.ndarray[Any, Any], bias: np.ndarray[Any, Any]) -> onnx.ModelProto:
        """From image to logits, with the head [1280, 10]."""
        inputs = [self._body(), self._constant("head.weight", matrix), self._constant("head.bias", bias)]
        self._nodes.append(helper.make_node("Gemm", inputs, ["logits"], name="head"))
        return self._model("logits", "logits", CLASSES)

    def _body(self) -> str:
        value, size = self._block("_conv_stem", "_bn0", "image", SIDE, stride=2)
        channels, number = 32, 0
        for repeats, kernel, stride, expansion, filters in _STAGES:
            for repeat in range(repeats):
                step = stride if repeat == 0 else 1
                value, size = self._inverted(
                    f"_blocks.{number}.", value, size, kernel, step, expansion, channels == filters
                )
                channels, number = filters, number + 1
        value, _ = self._block("_conv_head", "_bn1", value, size)
        self._nodes.append(helper.make_node("GlobalAveragePool", [value], ["pooled"], name="pool"))
        self._nodes.append(helper.make_node("Flatten", ["pooled"], ["features"], name="flatten"))
        return "features"

    def _inverted(
        self, name: str, value: str, size: int, kernel: int, stride: int, expansion: int, same: bool
    ) -> tuple[str, int]:
        """An inverted residual block: expand, filter each channel, project; added to its input where shapes agree."""
        inner = value
        if expansion > 1:
            inner, _ = self._block(f"{name}_expand_conv", f"{name}_bn0", inner, size)
        inner, after = self._block(f"{name}_depthwise_conv", f"{name}_bn1", inner, size, stride=stride, depthwise=True)
        inner, _ = self._block(f"{name}_project_conv", f"{name}_bn2", inner, after, clip=False)
        if stride == 1 and same:
            self._nodes.append(helper.make_node("Add", [inner, value], [f"{name}sum"], name=f"{name}add"))
            inner = f"{name}sum"
        return inner, after

    def _block(
        self,
        conv: str,
        norm: str,
        value: str,
        size: int,
        *,
        stride: int = 1,
        depthwise: bool = False,
        clip: bool = True,
    ) -> tuple[str, int]:
        """Convolution, batch normalization and ReLU6; padding as TensorFlow's SAME, uneven ones after the image."""
        kernel = self._weights[f"{conv}.weight"]
        side, after = kernel.shape[-1], math.ceil(size / stride)
        pad = max((after - 1) * stride + side - size, 0)
        pads = [pad // 2, pad // 2, pad - pad // 2, pad - pad // 2]
        made = helper.make_node(
            "Conv", [value, self._constant(f"{conv}.weight", kernel)], [f"{conv}.out"], name=conv, pads=pads,
            strides=[stride, stride], kernel_shape=[side, side], group=kernel.shape[0] if depthwise else 1,
        )  # fmt: skip
        parts = [self._constant(f"{norm}.{part}", self._weights[f"{norm}.{part}"]) for part in _NORM]
        normalized = helper.make_node(
            "BatchNormalization", [f"{conv}.out", *parts], [f"{norm}.out"], name=norm, epsilon=_EPSILON
        )
        self._nodes += [made, normalized]
        if not clip:
            return f"{norm}.out", after
        bounds = [self._constant(name, np.float32(bound)) for name, bound in (("zero", 0), ("six", 6))]
        self._nodes.append(helper.make_node("Clip", [f"{norm}.out", *bounds], [f"{norm}.relu6"], name=f"{norm}.clip"))
        return f"{norm}.relu6", after

    def _constant(self, name: str, array: Any) -> str:
        if all(tensor.name != name for tensor in self._constants):
            self._constants.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def _model(self, last: str, output: str, size: int) -> onnx.ModelProto:
        assert last == output
        graph = helper.make_graph(
            self._nodes,
            "efficientnet-lite0",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", size])],
            self._constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


_NORM = ("weight", "bias", "running_mean", "running_var")
