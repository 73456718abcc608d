"""Which nodes an executed operator stands for, from what engines say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

from hasten.model.node_work import WorkGraph, work_graph
from hasten.model.onnx_file import open_onnx
from hasten.profile.owners import named, owned_nodes
from hasten.spec.profile import OperatorTime


def graph_of(folder: Path, body: str) -> WorkGraph:
    proto = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g (float[2, 4] x) => (float[2, 4] y) {body}')
    proto.graph.initializer.extend(numpy_helper.from_array(np.ones((4, 4), np.float32), name) for name in "VW")
    onnx.save(proto, str(folder / "m.onnx"))
    return work_graph(open_onnx(folder / "m.onnx"), {})


def op(name: str, kind: str, *tensors: str, nodes: tuple[str, ...] = (), matrix: bool = False) -> OperatorTime:
    return OperatorTime(name=name, kind=kind, tensors=tensors, nodes=nodes, us=(1.0,), matrix=matrix)


def owned(graph: WorkGraph, *operators: OperatorTime) -> list[list[str]]:
    return [[graph.nodes[number].outputs[0] for number in numbers] for numbers in owned_nodes(operators, graph)]


def test_a_fused_operator_owns_what_leads_to_the_tensor_that_it_makes(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, "{ e = Exp(x) a = Neg(e) b = Exp(e) c = Add(a, b) y = MatMul(c, W) }")
    assert owned(graph, op("1", "Exp", "e"), op("2", "Fused", "c"), op("3", "MatMul", "y", matrix=True)) == [
        ["e"],
        ["a", "b", "c"],
        ["y"],
    ]


def test_an_activation_that_nobody_names_was_done_by_the_product_before_it(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, "{ h = MatMul(x, V) r = Relu(h) y = MatMul(r, W) }")
    found = owned(graph, op("1", "Gemm", "h", matrix=True), op("2", "MatMul", "y", matrix=True))
    assert found == [["h", "r"], ["y"]]


def test_a_product_that_nobody_names_is_not_given_to_one_that_has_its_own(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, "{ h = MatMul(x, V) y = MatMul(h, W) }")
    assert owned(graph, op("?", "MatMul", matrix=True), op("2", "MatMul", "y", matrix=True)) == [[], ["y"]]


def test_a_product_is_never_given_to_an_operator_that_multiplies_nothing(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, "{ h = MatMul(x, V) y = Softmax(h) }")
    assert owned(graph, op("?", "MatMul", matrix=True), op("2", "Softmax", "y")) == [[], ["y"]]
    assert owned(graph, op("1", "Softmax", nodes=("h", "y"))) == [["y"]]


def test_attention_may_own_several_products(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, "{ h = MatMul(x, V) s = Softmax(h) y = MatMul(s, W) }")
    assert owned(graph, op("1", "Attention", "y", matrix=True)) == [["h", "y", "s"]]


def test_what_an_engine_puts_in_to_lay_data_out_anew_owns_nothing(tmp_path: Path) -> None:
    graph = graph_of(tmp_path, "{ h = MatMul(x, V) y = Relu(h) }")
    found = owned(graph, op("1", "ReorderInput", "h"), op("2", "MatMul", "h", matrix=True), op("3", "Relu", "y"))
    assert found == [[], ["h"], ["y"]]


def test_without_a_graph_only_names_that_the_model_knows_count() -> None:
    operators = [op("1", "Convolution", nodes=("conv", "Multiply_77"))]
    assert named(operators, frozenset({"conv"})) == [("conv",)]
    assert named(operators, None) == [("conv", "Multiply_77")]
