"""What a model is made of, counted without running it and checked against sums done by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from hasten.errors import UsageError
from hasten.model.anatomy import anatomy
from hasten.model.flops import Work, count_work
from hasten.model.onnx_file import OnnxModel, open_onnx

Make = Callable[..., Path]


def save(folder: Path, text: str, *, opset: int = 17, more: str = "", **weights: tuple[int, ...]) -> Path:
    """A model in ONNX's text format; each weight is f32 of the given shape."""
    proto = parser.parse_model(f'<ir_version: 9, opset_import: ["" : {opset}{more}]> g {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(np.ones(s, np.float32), n) for n, s in weights.items())
    onnx.save(proto, str(folder / "m.onnx"))
    return folder / "m.onnx"


def work(folder: Path, body: str, inputs: str = "float[N, 8] x", output: str = "float[A, B] y", **rest: object) -> Work:
    dims = rest.pop("dims", {})
    path = save(folder, f"({inputs}) => ({output}) {{ {body} }}", **rest)  # type: ignore[arg-type]
    return count_work(open_onnx(path), dims)  # type: ignore[arg-type]


def test_multiply_accumulates_follow_the_given_dimensions(make_linear: Make) -> None:
    model = open_onnx(make_linear())
    assert count_work(model, {}).macs == 12
    eight = count_work(model, {"batch": 8})
    assert (eight.macs, eight.elementwise, eight.flops) == (96, 24, 216)
    assert count_work(model, {"x[0]": 8}) == eight


@pytest.mark.parametrize(
    ("body", "inputs", "weights", "macs"),
    [
        ("y = Conv(x, W)", "float[1, 3, 10, 10] x", {"W": (8, 3, 3, 3)}, 8 * 8 * 8 * 27),
        ("y = Conv <group = 4> (x, W)", "float[1, 4, 10, 10] x", {"W": (4, 1, 3, 3)}, 4 * 8 * 8 * 9),
        ("y = ConvTranspose(x, W)", "float[1, 3, 5, 5] x", {"W": (3, 8, 2, 2)}, 75 * 32),
        ("y = MatMul(x, W)", "float[2, 5, 8] x", {"W": (8, 3)}, 2 * 5 * 8 * 3),
        ("y = MatMul(x, z)", "float[8] x, float[8] z", {}, 8),
        ("y = Gemm <transA = 1> (x, W)", "float[8, 5] x", {"W": (8, 3)}, 5 * 8 * 3),
        ('y = Einsum <equation = "bhqd,bhkd->bhqk"> (x, z)', "float[2, 3, 4, 5] x, float[2, 3, 6, 5] z", {}, 720),
        ("y, h = LSTM <hidden_size = 4> (x, W, R)", "float[7, 2, 3] x", {"W": (1, 16, 3), "R": (1, 16, 4)},
         7 * 2 * 16 * (3 + 4)),
        ("y, h = GRU <hidden_size = 4> (x, W, R)", "float[7, 2, 3] x", {"W": (1, 12, 3), "R": (1, 12, 4)},
         7 * 2 * 12 * (3 + 4)),
    ],
)  # fmt: skip
def test_matrix_work_is_counted_as_by_hand(
    tmp_path: Path, body: str, inputs: str, weights: dict[str, tuple[int, ...]], macs: int
) -> None:
    counted = work(tmp_path, body, inputs, "float y", **weights)
    assert (counted.macs, counted.elementwise, counted.uncounted) == (macs, 0, {})


def test_attention_is_scores_and_weighted_values(tmp_path: Path) -> None:
    heads = "float[2, 3, 4, 8] q, float[2, 3, 6, 8] k, float[2, 3, 6, 5] v"
    counted = work(tmp_path, "y = Attention(q, k, v)", heads, "float[2, 3, 4, 5] y", opset=23)
    assert counted.macs == 2 * 3 * 4 * 6 * (8 + 5)


def test_a_quantized_convolution_counts_as_its_f32_original(tmp_path: Path) -> None:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (uint8[1, 3, 10, 10] x) => (uint8[1, 8, 8, 8] y) '
        "<float s = {0.1}, uint8 z = {0}> { y = QLinearConv(x, s, z, W, s, z, s, z) }"
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((8, 3, 3, 3), np.uint8), "W"))
    onnx.save(proto, str(tmp_path / "q.onnx"))
    assert count_work(open_onnx(tmp_path / "q.onnx"), {}).macs == 8 * 8 * 8 * 27


def test_moving_data_is_free_and_functions_count_one_for_each_element(tmp_path: Path) -> None:
    counted = work(tmp_path, "a = Transpose(x) b = Relu(a) y = Exp(b)", dims={"N": 5})
    assert (counted.macs, counted.elementwise) == (0, 2 * 40)


def test_pooling_counts_what_it_reads(tmp_path: Path) -> None:
    counted = work(
        tmp_path, "y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)", "float[1, 3, 8, 8] x", "float y"
    )
    assert counted.elementwise == 3 * 4 * 4 * 4


def test_the_costlier_branch_of_an_if_is_counted(tmp_path: Path) -> None:
    body = (
        "y = If (c) <then_branch = t () => (float[A, B] p) { p = MatMul(x, W) }, "
        "else_branch = e () => (float[A, B] p) { p = Relu(x) }>"
    )
    counted = work(tmp_path, body, "float[N, 8] x, bool c", W=(8, 8))
    assert (counted.macs, counted.elementwise) == (64, 0)


LOOP = "y = Loop ({trip}, c, x) <body = b (int64 i, bool d, float[1, 8] h) => (bool e, float[1, 8] o) {{ e = Identity(d) o = MatMul(h, W) }}>"  # noqa: E501


def test_a_loop_counts_as_often_as_it_runs(tmp_path: Path) -> None:
    fixed = "t = Constant <value = int64 {5}> () " + LOOP.format(trip="t")
    assert work(tmp_path, fixed, "float[1, 8] x, bool c", W=(8, 8)).macs == 5 * 64


def test_a_loop_of_unknown_length_counts_once_and_says_so(tmp_path: Path) -> None:
    counted = work(tmp_path, LOOP.format(trip="t"), "float[1, 8] x, bool c, int64 t", W=(8, 8))
    assert counted.macs == 64
    assert "counted once" in counted.notes[0]


def test_shapes_that_a_graph_computes_are_followed(tmp_path: Path) -> None:
    """Through a cast, at which ONNX's own inference gives up."""
    body = (
        "s = Shape(x) f = Cast <to = 1> (s) g = Cast <to = 7> (f) i = Constant <value = int64[1] {0}> () "
        "n = Gather(g, i) m = Constant <value = int64[1] {-1}> () t = Concat <axis = 0> (n, m) "
        "r = Reshape(x, t) y = MatMul(r, W)"
    )
    counted = work(tmp_path, body, "float[N, 2, 4] x", dims={"N": 3}, W=(8, 2))
    assert (counted.macs, counted.uncounted) == (3 * 8 * 2, {})


def test_what_only_a_run_can_tell_is_named_and_not_guessed(tmp_path: Path) -> None:
    path = save(
        tmp_path, "(float[N, 8] x, int64[2] t) => (float[A, B] y) { r = Reshape(x, t) y = MatMul(r, W) }", W=(8, 8)
    )
    seen = anatomy(open_onnx(path), {})
    assert seen.work is not None
    assert seen.work.uncounted == {"MatMul": 1}
    assert seen.work.activation_bytes is None
    assert any("MatMul 1" in limit for limit in seen.limits)


def test_functions_of_the_model_are_written_out(tmp_path: Path) -> None:
    text = (
        '<ir_version: 9, opset_import: ["" : 17, "mine" : 1]> g (float[N, 8] x) => (float[N, 8] y) '
        "{ y = mine.twice(x) } "
        '<domain: "mine", opset_import: ["" : 17]> twice (a) => (b) { h = Relu(a) b = Sigmoid(h) }'
    )
    model = OnnxModel(tmp_path / "f.onnx", parser.parse_model(text), "")
    assert count_work(model, {}).elementwise == 16


def test_activations_die_when_nobody_reads_them_any_more(tmp_path: Path) -> None:
    chain = work(tmp_path, "a = Relu(x) b = Relu(a) c = Relu(b) y = Relu(c)")
    kept = work(tmp_path, "a = Relu(x) b = Relu(a) c = Add(b, x) y = Add(c, a)")
    assert chain.activation_bytes == 2 * 8 * 4
    assert kept.activation_bytes == 4 * 8 * 4


def test_bytes_by_weight_type_find_constants_and_subgraphs_too(tmp_path: Path) -> None:
    text = (
        "(float[N, 2] x, bool c) => (float[N, 2] y) { k = Constant <value = float[2] {1, 2}> () h = Add(x, k) "
        "y = If (c) <then_branch = t () => (float[N, 2] p) { q = Constant <value = double[2] {1, 2}> () "
        "w = Cast <to = 1> (q) p = Mul(h, w) }, else_branch = e () => (float[N, 2] r) { r = Relu(h) }> }"
    )
    assert anatomy(open_onnx(save(tmp_path, text)), {}).weights == {"DOUBLE": 16, "FLOAT": 8}


def test_a_dimension_that_is_not_there_is_named_with_those_that_are(make_linear: Make) -> None:
    with pytest.raises(UsageError, match=r"no free dimension 'height'.*batch, x\[0\]"):
        anatomy(open_onnx(make_linear()), {"height": 3})


def test_three_gigabytes_of_weights_are_counted_without_loading_them(tmp_path: Path) -> None:
    tensor = TensorProto(name="W", data_type=TensorProto.FLOAT, dims=[8, 100_000_000])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "W"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 100_000_000])],
        [tensor],
    )
    # No file is read: counting needs what a tensor looks like, not what it holds.
    model = OnnxModel(tmp_path / "big.onnx", helper.make_model(graph, ir_version=8), "")
    assert count_work(model, {}).macs == 800_000_000
