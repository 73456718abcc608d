"""Models of awkward kinds, each made here in a few lines, with samples: what real exporters write, made small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, parser

from hasten.data import Dataset
from hasten.model.onnx_file import all_nodes

RNG = np.random.default_rng(7)
SAMPLES = 120
Array = np.ndarray


def normal(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


@dataclass(frozen=True)
class Kind:
    """A model in ONNX's text format with its weights, samples for it, and a last touch that the format cannot say."""

    text: str
    inputs: dict[str, Array]
    weights: dict[str, Array] = field(default_factory=dict)
    opset: int = 17
    ml: bool = False
    touch: Callable[[onnx.ModelProto], None] = lambda proto: None
    save: Callable[[onnx.ModelProto, Path], None] = lambda proto, path: onnx.save(proto, str(path))

    def write(self, path: Path) -> Path:
        imports = f'"" : {self.opset}' + (', "ai.onnx.ml" : 3' if self.ml else "")
        proto = parser.parse_model(f"<ir_version: 8, opset_import: [{imports}]> g {self.text}")
        proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in self.weights.items())
        self.touch(proto)
        self.save(proto, path)
        return path

    def dataset(self) -> Dataset:
        return Dataset(inputs=self.inputs, name="made up")


def weights_also_inputs(proto: onnx.ModelProto) -> None:
    """As exporters did before IR version 4: every initializer is listed as an input, too."""
    proto.ir_version = 3
    for tensor in proto.graph.initializer:
        proto.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def same_names(proto: onnx.ModelProto) -> None:
    """Each branch has nodes of the same names, and so has the main graph."""
    for node in all_nodes(proto.graph):
        node.name = node.op_type


def one_name_for_all(proto: onnx.ModelProto) -> None:
    for node in proto.graph.node:
        node.name = "node"


def beside(proto: onnx.ModelProto, path: Path) -> None:
    onnx.save_model(proto, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)


def sparse_beside(proto: onnx.ModelProto, path: Path) -> None:
    """A table of 3.2 GB in a file that takes no room on disk."""
    rows = 100_000_000
    table = proto.graph.initializer.add(name="T", data_type=TensorProto.FLOAT, dims=[rows, 8])
    table.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "table.bin"), ("offset", "0"), ("length", str(rows * 8 * 4))):
        table.external_data.add(key=key, value=value)
    with path.with_name("table.bin").open("wb") as stream:
        stream.truncate(rows * 8 * 4)
    path.write_bytes(proto.SerializeToString())


X = {"x": normal(SAMPLES, 8)}
PICTURES = {"x": normal(SAMPLES, 3, 8, 8)}
W, V, B = normal(8, 8), normal(8, 8), normal(8)
CONV = normal(4, 3, 3, 3)
QUANTIZED = {
    "s": np.array(0.05, np.float32),
    "z": np.array(0, np.int8),
    "q": np.clip(W * 20, -127, 127).astype(np.int8),
}
U8 = {"us": np.array(0.05, np.float32), "uz": np.array(128, np.uint8)}
WORDS = np.array([f"word{number}".encode() for number in range(SAMPLES)], dtype=object)

KINDS: dict[str, Kind] = {
    "if_subgraph": Kind(
        "(float[N, 8] x) => (float[N, 8] y) { h = MatMul(x, W) m = ReduceMean <keepdims = 0> (h) o = Constant <value = "
        "float {0}> () c = Greater(m, o) y = If (c) <then_branch = t () => (float[N, 8] p) { k = MatMul(h, V) "
        "p = Relu(k) }, else_branch = e () => (float[N, 8] q) { q = Sigmoid(h) }> }",
        X, {"W": W, "V": V},
    ),
    "loop_subgraph": Kind(
        "(float[N, 8] x) => (float[N, 8] y) { t = Constant <value = int64 {3}> () c = Constant <value = bool {1}> () "
        "y = Loop (t, c, x) <body = b (int64 i, bool d, float[N, 8] h) => (bool e, float[N, 8] o) "
        "{ e = Identity(d) k = MatMul(h, W) o = Tanh(k) }> }",
        X, {"W": W},
    ),
    "same_names_in_subgraphs": Kind(
        "(float[N, 8] x, bool[N] f) => (float[N, 8] y) { i = Constant <value = int64 {0}> () c = Gather(f, i) "
        "y = If (c) <then_branch = t () => (float[N, 8] o) { k = Constant <value = float {2}> () h = Mul(x, k) "
        "o = MatMul(h, W) }, else_branch = e () => (float[N, 8] o) { k = Constant <value = float {3}> () "
        "h = Mul(x, k) o = MatMul(h, W) }> }",
        {**X, "f": RNG.random(SAMPLES) < 0.5}, {"W": W}, touch=same_names,
    ),
    "several_inputs_and_outputs": Kind(
        "(float[N, 8] x, float[N, 8] w, int64[N] n) => (float[N, 8] y, float[N, 8] z, int64[N] m) "
        "{ h = MatMul(x, W) y = Add(h, w) z = Relu(w) m = Neg(n) }",
        {**X, "w": normal(SAMPLES, 8), "n": RNG.integers(0, 9, SAMPLES)}, {"W": W},
    ),
    "text_input": Kind(
        "(string[N] s) => (float[N, 8] y) { i = ai.onnx.ml.LabelEncoder <keys_strings = "
        "[\"word1\", \"word2\", \"word3\"], values_int64s = [0, 1, 2], default_int64 = 3> (s) y = Gather(W, i) }",
        {"s": WORDS}, {"W": W}, ml=True,
    ),
    "int64_input": Kind(
        "(int64[N, 5] i) => (float[N, 8] y) { e = Gather(W, i) m = ReduceMean <axes = [1], keepdims = 0> (e) "
        "y = MatMul(m, V) }",
        {"i": RNG.integers(0, 8, (SAMPLES, 5))}, {"W": W, "V": V},
    ),
    "scalars": Kind(
        "(float[8] x, float t) => (float y) { h = MatMul(x, W) k = Mul(h, t) y = ReduceSum <keepdims = 0> (k) }",
        {**X, "t": normal(SAMPLES)}, {"W": W},
    ),
    "dynamic_everything": Kind(
        "(float[A, B, C, D] x) => (float[E, F, G, H] y) { h = Conv <pads = [1, 1, 1, 1]> (x, K) y = Relu(h) }",
        PICTURES, {"K": CONV},
    ),
    "no_batch_axis": Kind(
        "(float[4, 8] x) => (float[4, 8] y) { h = MatMul(x, W) y = Add(h, B) }",
        {"x": normal(SAMPLES, 4, 8)}, {"W": W, "B": B},
    ),
    "stateful": Kind(
        "(float[N, 8] x, float[N, 8] state) => (float[N, 8] y, float[N, 8] next) { a = MatMul(x, W) "
        "b = MatMul(state, V) c = Add(a, b) next = Tanh(c) y = MatMul(next, W) }",
        {**X, "state": normal(SAMPLES, 8)}, {"W": W, "V": V},
    ),
    "half_input": Kind(
        "(float16[N, 8] x) => (float16[N, 8] y) { h = MatMul(x, W) y = Relu(h) }",
        {"x": X["x"].astype(np.float16)}, {"W": W.astype(np.float16)},
    ),
    "quantized_qdq": Kind(
        "(float[N, 8] x) => (float[N, 8] y) { a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z) "
        "w = DequantizeLinear(q, s, z) y = MatMul(b, w) }",
        X, QUANTIZED,
    ),
    "quantized_operators": Kind(
        "(float[N, 8] x) => (float[N, 8] y) { a = QuantizeLinear(x, us, uz) "
        "b = QLinearMatMul(a, us, uz, q, s, z, us, uz) y = DequantizeLinear(b, us, uz) }",
        X, {**QUANTIZED, **U8},
    ),
    "weights_beside": Kind(
        "(float[N, 8] x) => (float[N, 8] y) { h = MatMul(x, W) r = Relu(h) y = MatMul(r, V) }",
        X, {"W": W, "V": V}, save=beside,
    ),
    "weights_in_constants": Kind(
        f"(float[N, 8] x) => (float[N, 8] y) {{ k = Constant <value = float[8, 8] {{{', '.join(map(str, W.ravel()))}}}"
        "> () y = MatMul(x, k) }",
        X,
    ),
    "unnamed_nodes": Kind(
        "(float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y) { h = Conv <pads = [1, 1, 1, 1]> (x, K) r = Relu(h) "
        "y = HardSigmoid(r) }",
        PICTURES, {"K": CONV},
    ),
    "opset_9": Kind(
        "(float[N, 8] x) => (float[N, 4] y) { h = Gemm <transB = 1> (x, W, B) r = Relu(h) "
        "y = Slice <axes = [1], starts = [0], ends = [4]> (r) }",
        X, {"W": W, "B": B}, opset=9, touch=weights_also_inputs,
    ),
    "zero_sizes": Kind(
        "(float[N, 8] x) => (float[N, 8] y) { o = Constant <value = int64[1] {0}> () "
        "n = Constant <value = int64[1] {1}> () e = Slice(x, o, o, n) h = Concat <axis = 1> (e, x) y = MatMul(h, W) }",
        X, {"W": W, "none": np.empty((0, 8), np.float32)},
    ),
    "no_float_weights": Kind(
        "(float[N, 8] x) => (int64[N] y) { a = ArgMax <axis = 1, keepdims = 0> (x) y = Add(a, k) }",
        X, {"k": np.array([1], np.int64)},
    ),
    "float_and_integer_outputs": Kind(
        "(float[N, 8] x) => (float[N, 8] y, int64[N] best) { y = MatMul(x, W) "
        "best = ArgMax <axis = 1, keepdims = 0> (y) }",
        X, {"W": W},
    ),
    "large_unused_initializer": Kind(
        "(float[N, 8] x) => (float[N, 8] y) { y = MatMul(x, W) }",
        X, {"W": W, "idle": np.ones(2_000_000, np.float32)},
    ),
    "random_answers": Kind(
        "(float[N, 8] x) => (float[N, 8] y) { r = RandomNormalLike(x) h = Add(x, r) y = MatMul(h, W) }",
        X, {"W": W},
    ),
    "not_a_number": Kind(
        "(float[N, 8] x) => (float[N, 8] y) { h = MatMul(x, W) y = Log(h) }",
        X, {"W": W},
    ),
    "output_is_input": Kind(
        "(float[N, 8] x) => (float[N, 8] y, float[N, 8] same, float[8] b) { y = MatMul(x, W) same = Identity(x) "
        "b = Identity(B) }",
        X, {"W": W, "B": B},
    ),
}  # fmt: skip

# 3.2 GB: each look at it reads the whole file once, to hash it.
GIANT = Kind("(int64[N] i) => (float[N, 8] y) { e = Gather(T, i) y = MatMul(e, W) }",
             {"i": RNG.integers(0, 1000, SAMPLES)}, {"W": W}, save=sparse_beside)  # fmt: skip


# Two nodes of one graph with the same name: ONNX allows it, ONNX Runtime refuses it.
ONE_NAME = Kind("(float[N, 8] x) => (float[N, 8] y) { h = MatMul(x, W) y = MatMul(h, V) }",
                X, {"W": W, "V": V}, touch=one_name_for_all)  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A kind with its file."""

    name: str
    path: Path
    data: Dataset


@pytest.fixture(params=list(KINDS))
def awkward(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    """Each kind in turn."""
    folder = tmp_path / "source"
    folder.mkdir()
    kind = KINDS[request.param]
    return Made(request.param, kind.write(folder / "model.onnx"), kind.dataset())


@pytest.fixture
def giant(tmp_path: Path) -> Made:
    """3.2 GB of weights."""
    return Made("giant", GIANT.write(tmp_path / "model.onnx"), GIANT.dataset())


@pytest.fixture
def one_name(tmp_path: Path) -> Made:
    """A model that opens and that the reference engine refuses."""
    return Made("one_name", ONE_NAME.write(tmp_path / "model.onnx"), ONE_NAME.dataset())
