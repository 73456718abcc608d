"""The work of nodes, alone and joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from hasten.model.flops import count_work
from hasten.model.node_work import WorkGraph, work_graph
from hasten.model.onnx_file import open_onnx


@pytest.fixture
def graph(tmp_path: Path) -> WorkGraph:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 8] x) => (float[N, 4] y) '
        "{ [product] h = MatMul(x, W) [sum] s = Add(h, b) [kink] y = Relu(s) }"
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((8, 4), np.float32), "W"))
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(4, np.float32), "b"))
    onnx.save(proto, str(tmp_path / "m.onnx"))
    return work_graph(open_onnx(tmp_path / "m.onnx"), {"N": 2})


def test_nodes_add_up_to_the_model(graph: WorkGraph, tmp_path: Path) -> None:
    assert graph.flops(range(3)) == count_work(open_onnx(tmp_path / "m.onnx"), {"N": 2}).flops
    assert [node.flops for node in graph.nodes] == [2 * 2 * 8 * 4, 8, 8]


def test_what_passes_between_joined_nodes_moves_no_bytes(graph: WorkGraph) -> None:
    x, weights, bias, out = 2 * 8 * 4, 8 * 4 * 4, 4 * 4, 2 * 4 * 4
    assert graph.bytes_moved([0]) == x + weights + out
    assert graph.bytes_moved([0, 1]) == x + weights + bias + out
    assert graph.bytes_moved([0, 1, 2]) == x + weights + bias + out


def test_nodes_are_found_by_name_and_by_what_they_make(graph: WorkGraph) -> None:
    assert (graph.by_name["sum"], graph.makers["s"], graph.readers(0)) == (1, 1, [1])


def test_choosing_rows_reads_no_more_than_it_writes(tmp_path: Path) -> None:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (int64[2] i) => (float[2, 4] y) { y = Gather(W, i) }'
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.ones((10_000, 4), np.float32), "W"))
    onnx.save(proto, str(tmp_path / "g.onnx"))
    assert work_graph(open_onnx(tmp_path / "g.onnx"), {}).bytes_moved([0]) == 32 + 16 + 32


def test_what_is_computed_from_constants_alone_is_no_node_of_the_work(tmp_path: Path) -> None:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2000] x) => (float[2000] y) { c = Neg(W) y = Add(x, c) }'
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(2000, np.float32), "W"))
    onnx.save(proto, str(tmp_path / "c.onnx"))
    assert [node.kind for node in work_graph(open_onnx(tmp_path / "c.onnx"), {}).nodes] == ["Add"]
