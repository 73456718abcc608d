"""Lengths as branches of one graph: answers stay, weights are shared, and what loses answers there stays out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest
from openvino import opset13 as opset

from hasten.engine.base import engines
from hasten.engine.openvino import OpenVinoSession
from hasten.engine.openvino_branches import branching, may_branch, turn_weights
from hasten.engine.openvino_fixed import at_lengths
from hasten.spec.target import Precision, Runtime, Target

LENGTHS = (2, 4, 6, 9)
INPUTS = "(int64[n, s] ids, int64[n, s] attention_mask) => (float[n, 3] y)"
WEIGHTS = "float[5, 4] table, float[16, 4] places, float[4, 4] inner, float[4, 3] outer"
# An encoder in small: tables, places that follow from the length, products with weights, the mean over what is text.
BODY = """{
  zero = Constant<value = int64[1] {0}>()
  one = Constant<value = int64[1] {1}>()
  last = Constant<value = int64[1] {-1}>()
  size = Shape<start = 1>(ids)
  near = Slice(places, zero, size, zero)
  rows = Gather(table, ids)
  placed = Add(rows, near)
  hidden = MatMul(placed, inner)
  active = Relu(hidden)
  each = MatMul(active, outer)
  mask = Cast<to = 1>(attention_mask)
  column = Unsqueeze(mask, last)
  weighed = Mul(each, column)
  sum = ReduceSum<keepdims = 0>(weighed, one)
  count = ReduceSum<keepdims = 0>(column, one)
  y = Div(sum, count)
}"""
ROUNDED = """  scale = Constant<value = float {0.05}>()
  none = Constant<value = int8 {0}>()
  whole = QuantizeLinear(placed, scale, none)
  again = DequantizeLinear(whole, scale, none)
  hidden = MatMul(again, inner)
"""


def encoder(path: Path, body: str = BODY) -> Path:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {INPUTS} <{WEIGHTS}> {body}')
    rng = np.random.default_rng(3)
    del proto.graph.initializer[:]
    for name, shape in (("table", (5, 4)), ("places", (16, 4)), ("inner", (4, 4)), ("outer", (4, 3))):
        values = rng.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(proto, str(path))
    return path


def load(path: Path, lengths: tuple[int, ...] = (), precision: Precision = "f32", **options: Any) -> OpenVinoSession:
    target = Target(
        engine="openvino", precision=precision, threads=1, runtime=Runtime(lengths=lengths), options=options
    )
    session = engines.get("openvino").load(path, target)
    assert isinstance(session, OpenVinoSession)
    return session


def network(path: Path) -> Any:
    import openvino as ov

    return ov.Core().read_model(str(path))


def tokens(length: int, seed: int = 0) -> dict[str, Any]:
    ids = np.random.default_rng(seed).integers(0, 5, (1, length))
    return {"ids": ids, "attention_mask": np.ones((1, length), np.int64)}


def graphs(session: OpenVinoSession) -> int:
    assert session._fixed is not None
    return len(session._fixed._graphs)


def test_branches_round_in_bf16_as_graphs_apart_do(tmp_path: Path) -> None:
    device = engines.get("openvino").probe().device("CPU")
    if device is None or "bf16" not in device.precisions:
        # Loading would be refused: the rounding that is compared here exists on no such processor.
        pytest.skip("this processor does not compute in bf16")
    path = encoder(tmp_path / "m.onnx")
    together, apart = load(path, LENGTHS, "bf16"), load(path, LENGTHS, "bf16", PERF_COUNT=True)
    assert (graphs(together), graphs(apart)) == (1, len(LENGTHS))
    for length in range(1, 10):
        inputs = tokens(length, seed=length)
        np.testing.assert_allclose(together.run(inputs)["y"], apart.run(inputs)["y"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lengths", [(9,), (4, 9), LENGTHS], ids=["one", "two", "four"])
def test_branches_answer_as_graphs_apart_do(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    path = encoder(tmp_path / "m.onnx")
    together, plain = load(path, lengths), load(path)
    assert graphs(together) == 1
    for length in (*range(1, 10), *range(9, 0, -1)):
        inputs = tokens(length, seed=length)
        np.testing.assert_allclose(together.run(inputs)["y"], plain.run(inputs)["y"], rtol=1e-5, atol=1e-6)


def test_callers_of_different_lengths_keep_apart(tmp_path: Path) -> None:
    path = encoder(tmp_path / "m.onnx")
    target = Target(engine="openvino", threads=1, runtime=Runtime(lengths=LENGTHS, instances=2))
    session, plain = engines.get("openvino").load(path, target), load(path)
    asked = [tokens(1 + at % 9, seed=at) for at in range(60)]
    with ThreadPoolExecutor(2) as callers:
        found = list(callers.map(lambda inputs: session.run(inputs)["y"], asked))
    for got, inputs in zip(found, asked, strict=True):
        np.testing.assert_allclose(got, plain.run(inputs)["y"], rtol=1e-5, atol=1e-6)


def test_a_model_that_is_profiled_has_graphs_apart(tmp_path: Path) -> None:
    assert graphs(load(encoder(tmp_path / "m.onnx"), LENGTHS, PERF_COUNT=True)) == len(LENGTHS)


def test_a_quantized_model_stays_out_of_branches(tmp_path: Path) -> None:
    path = encoder(tmp_path / "q.onnx", BODY.replace("  hidden = MatMul(placed, inner)\n", ROUNDED))
    apart, plain = load(path, LENGTHS, "int8"), load(path, precision="int8")
    assert graphs(apart) == len(LENGTHS)
    for length in range(1, 10):
        inputs = tokens(length, seed=length)
        np.testing.assert_allclose(apart.run(inputs)["y"], plain.run(inputs)["y"], rtol=1e-5, atol=1e-6)


def test_a_model_with_branches_of_its_own_is_no_branch(tmp_path: Path) -> None:
    whole = network(encoder(tmp_path / "m.onnx"))
    assert may_branch(whole)
    _, copies = at_lengths(whole, LENGTHS)
    assert not may_branch(branching(copies, LENGTHS))


def test_weights_are_turned_once_for_all_copies(tmp_path: Path) -> None:
    whole = network(encoder(tmp_path / "m.onnx"))
    turn_weights(whole)
    _, copies = at_lengths(whole, LENGTHS)
    for copy in copies:
        products = [node for node in copy.get_ordered_ops() if node.get_type_name() == "MatMul"]
        assert [node.get_attributes()["transpose_b"] for node in products] == [True, True]
    homes = {weights(copy, "MatMul").ctypes.data for copy in copies}
    assert len(homes) == 1, "the same memory"


def test_products_share_turned_weights_where_they_share_weights_whatever_these_are_called() -> None:
    x = opset.parameter([2, 2], np.float32)
    first, second = (opset.constant(np.array(values, np.float32)) for values in ([[1, 2], [3, 4]], [[5, 6], [7, 8]]))
    # Names of nodes need not differ.
    second.set_friendly_name(first.get_friendly_name())
    products = [opset.matmul(x, taken, False, False) for taken in (first, second, first)]
    network = ov.Model(products, [x])
    turn_weights(network)
    held = [one.get_node().input_value(0).get_node().input_value(1).get_node().data for one in network.outputs]
    assert [one.tolist() for one in held] == [[[1, 3], [2, 4]], [[5, 7], [6, 8]], [[1, 3], [2, 4]]]
    assert held[0].ctypes.data == held[2].ctypes.data


def weights(copy: Any, kind: str) -> Any:
    found = next(node for node in copy.get_ordered_ops() if node.get_type_name() == kind)
    return found.input_value(1).get_node().data
