"""Which techniques are named for a bottleneck, and which are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser
from tests.profile.profiles import operator

from hasten.model.node_work import work_graph
from hasten.model.onnx_file import open_onnx
from hasten.profile.advice import Adviser, Part
from hasten.spec.profile import Bound, Remedy


def asked(
    folder: Path, body: str, bound: Bound, weights: np.ndarray | None = None, opset: int = 17
) -> dict[str, Remedy]:
    proto = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> g (float[N, 64] x) => (float[N, 64] y) {body}'
    )
    rng = np.random.default_rng(0)
    values = rng.normal(size=(64, 64)).astype(np.float32) if weights is None else weights
    proto.graph.initializer.append(numpy_helper.from_array(values, "W"))
    onnx.save(proto, str(folder / "m.onnx"))
    model = open_onnx(folder / "m.onnx")
    nodes = work_graph(model, {}).nodes
    parts = [Part(operator=operator("o", 1.0), nodes=(node,), matrix=node.matrix) for node in nodes]
    return {remedy.transform: remedy for remedy in Adviser(model, "onnxruntime").remedies(parts, bound)}


def test_a_product_bound_by_arithmetic_is_for_int8(tmp_path: Path) -> None:
    found = asked(tmp_path, "{ y = MatMul(x, W) }", "compute")
    assert {"quantize_static", "quantize_dynamic"} <= set(found)
    assert found["quantize_static"].operators == 1


def test_a_technique_that_needs_another_first_names_it(tmp_path: Path) -> None:
    assert asked(tmp_path, "{ y = MatMul(x, W) }", "compute", opset=12)["quantize_static"].after == "raise_opset"


def test_overhead_is_not_for_int8(tmp_path: Path) -> None:
    assert "quantize_static" not in asked(tmp_path, "{ y = MatMul(x, W) }", "overhead")


def test_elementwise_work_without_a_pattern_has_no_remedy(tmp_path: Path) -> None:
    assert asked(tmp_path, "{ h = Exp(x) y = Neg(h) }", "memory") == {}


def test_a_finding_of_inspect_becomes_a_remedy_in_its_own_words(tmp_path: Path) -> None:
    found = asked(tmp_path, "{ y = MatMul(x, W) }", "compute", np.full((64, 64), 1e-40, np.float32))
    assert "subnormal numbers" in found["flush_subnormals"].why
