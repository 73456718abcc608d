"""A cascade inside the graph: the int8 form answers what is clear, the model itself what is close."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.transform.small_models import SAMPLES, images, quantized, save, small_convolutions

from hasten.data import Dataset
from hasten.data.dataset import Samples
from hasten.engine.base import engines
from hasten.model.onnx_file import all_nodes
from hasten.model.open import open_model
from hasten.spec.target import Runtime, Target
from hasten.transform.base import TransformFailed, transforms

refused = quantized
EVERYTHING = 1e6


def subject(folder: Path) -> tuple[Path, Samples]:
    return small_convolutions(folder / "convolutions.onnx"), images()


def made(source: Path, samples: Samples, folder: Path, technique: str = "cascade", **options: Any) -> Path:
    folder.mkdir()
    path, _ = transforms.get(technique).run(source, folder, samples, options)
    return path


def batch(samples: Samples) -> dict[str, Any]:
    rows = [samples.inputs(at) for at in range(len(samples))]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def answers(path: Path, inputs: Mapping[str, Any], engine: str = "onnxruntime", **knobs: Any) -> Any:
    target = Target(engine=engine, threads=1, runtime=Runtime(**knobs))
    with closing(engines.get(engine).load(path, target)) as session:
        return session.run(inputs)["y"]


def operators(graph: onnx.GraphProto) -> set[str]:
    return {node.op_type for node in all_nodes(graph)}


def margins(scores: Any) -> Any:
    two = np.sort(scores, -1)[..., -2:]
    return (two[..., 1] - two[..., 0]).reshape(len(scores), -1).min(1)


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Samples, Any, Any]:
    """The model, its samples, and what it and its int8 form answer."""
    source, samples = subject(tmp_path)
    light = made(source, samples, tmp_path / "light", "quantize_static")
    return source, samples, answers(source, batch(samples)), answers(light, batch(samples))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_close_calls_are_computed_again_and_all_else_is_left(
    engine: str, both: tuple[Path, Samples, Any, Any], tmp_path: Path
) -> None:
    source, samples, full, light = both
    below = float(np.median(margins(light)))
    got = answers(made(source, samples, tmp_path / "out", below=below), batch(samples), engine)
    close = margins(light) < below
    assert 0 < close.sum() < SAMPLES
    np.testing.assert_allclose(got[close], full[close], atol=1e-4)
    # Engines round int8 in ways of their own; the two forms lie further apart than that.
    np.testing.assert_allclose(got[~close], light[~close], atol=0.05)
    assert np.abs(got[~close] - full[~close]).max() > 1e-3


def test_single_rows_have_a_graph_of_fixed_shape_with_the_same_answers(
    both: tuple[Path, Samples, Any, Any], tmp_path: Path
) -> None:
    source, samples, _, light = both
    path = made(source, samples, tmp_path / "out", below=float(np.median(margins(light))))
    inputs = batch(samples)
    for row in range(SAMPLES):
        one = {name: array[row : row + 1] for name, array in inputs.items()}
        fixed = answers(path, one, "openvino", single_row=True)
        np.testing.assert_allclose(fixed, answers(path, one, "openvino"), atol=1e-5)


def test_where_rows_of_a_batch_depend_on_each_other_the_whole_batch_is_run_again(tmp_path: Path) -> None:
    """The first axis is open, and the model takes the mean over it."""
    source, samples = subject(tmp_path)
    proto = onnx.load(str(source))
    [mean] = [node for node in proto.graph.node if node.name == "mean"]
    mean.output[0] = "own"
    more = [
        helper.make_node("ReduceMean", ["own"], ["all"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["own", "all"], ["m"]),
    ]
    place = list(proto.graph.node).index(mean) + 1
    nodes = [*proto.graph.node[:place], *more, *proto.graph.node[place:]]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    onnx.save(proto, str(source))
    path = made(source, samples, tmp_path / "out", below=EVERYTHING)
    assert "NonZero" not in operators(onnx.load(str(path)).graph)
    np.testing.assert_allclose(answers(path, batch(samples)), answers(source, batch(samples)), atol=1e-5)


def test_a_margin_of_nothing_leaves_the_int8_answers(both: tuple[Path, Samples, Any, Any], tmp_path: Path) -> None:
    source, samples, _, light = both
    np.testing.assert_array_equal(answers(made(source, samples, tmp_path / "out", below=0.0), batch(samples)), light)


def test_a_margin_beyond_all_gives_the_answers_of_the_model(
    both: tuple[Path, Samples, Any, Any], tmp_path: Path
) -> None:
    source, samples, full, _ = both
    got = answers(made(source, samples, tmp_path / "out", below=EVERYTHING), batch(samples))
    np.testing.assert_allclose(got, full, atol=1e-5)


def fixed(folder: Path) -> Path:
    """The same model for single rows."""
    path = small_convolutions(folder / "fixed.onnx")
    proto = onnx.load(str(path))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(proto, str(path))
    return path


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_model_of_fixed_batch_is_run_again_as_a_whole(engine: str, tmp_path: Path) -> None:
    source, samples = fixed(tmp_path), images()
    path = made(source, samples, tmp_path / "out", below=EVERYTHING)
    one = {name: array[:1] for name, array in batch(samples).items()}
    np.testing.assert_allclose(answers(path, one, engine), answers(source, one), atol=1e-4)


def positions(path: Path, opset: int) -> Path:
    """x [n, 4, 8] -> MatMul -> y [n, 4, 3]: scores at each of four positions."""
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="head")]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 3])]
    save(path, nodes, inputs, outputs, {"w": rng.normal(size=(8, 3)).astype(np.float32)})
    proto = onnx.load(str(path))
    proto.opset_import[0].version = opset
    onnx.save(proto, str(path))
    return path


@pytest.mark.parametrize("opset", [17, 18])
def test_the_closest_of_many_positions_decides(opset: int, tmp_path: Path) -> None:
    source = positions(tmp_path / "positions.onnx", opset)
    values = np.random.default_rng(1).normal(size=(SAMPLES, 4, 8)).astype(np.float32)
    samples = Dataset(inputs={"x": values}).subset(range(SAMPLES))
    light = answers(made(source, samples, tmp_path / "light", "quantize_dynamic"), {"x": values})
    below = float(np.median(margins(light)))
    path = made(source, samples, tmp_path / "out", of="quantize_dynamic", below=below)
    close = margins(light) < below
    np.testing.assert_allclose(answers(path, {"x": values})[close], (answers(source, {"x": values}))[close], atol=1e-5)
    np.testing.assert_array_equal(answers(path, {"x": values})[~close], light[~close])


def test_the_interface_stays_as_it_was(both: tuple[Path, Samples, Any, Any], tmp_path: Path) -> None:
    source, samples, _, _ = both
    assert open_model(made(source, samples, tmp_path / "out", below=0.1)).signature == open_model(source).signature


def test_a_model_with_branches_of_its_own_keeps_their_names_apart(tmp_path: Path) -> None:
    """x -> MatMul -> If the sum is positive: MatMul with one matrix, else with another -> y."""
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=(8, 8)).astype(np.float32) for name in ("w", "w_then", "w_else")}

    def branch(name: str) -> onnx.GraphProto:
        node = helper.make_node("MatMul", ["h", f"w_{name}"], [f"y_{name}"])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(f"y_{name}", 1, ["n", 8])])

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("ReduceSum", ["h"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=branch("then"), else_branch=branch("else")),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])]
    source = save(tmp_path / "branches.onnx", nodes, inputs, outputs, {**weights, "zero": np.array(0, np.float32)})
    values = rng.normal(size=(SAMPLES, 8)).astype(np.float32)
    samples = Dataset(inputs={"x": values}).subset(range(SAMPLES))
    path = made(source, samples, tmp_path / "out", of="quantize_dynamic", below=EVERYTHING)
    for row in values:
        one = {"x": row[None]}
        np.testing.assert_allclose(answers(path, one), answers(source, one), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"of": "fold"}, "choose quantize_static or quantize_dynamic"),
        ({"below": -1.0}, "a margin cannot be negative"),
        ({"bits": 4}, "cascade has no option 'bits'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    with pytest.raises(TransformFailed, match=words):
        made(source, samples, tmp_path / "out", **options)


def test_outputs_without_scores_are_refused(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    proto = onnx.load(str(source))
    proto.graph.node.append(helper.make_node("ArgMax", ["y"], ["class"], axis=1))
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info("class", TensorProto.INT64, ["n", 1]))
    onnx.save(proto, str(source))
    with pytest.raises(TransformFailed, match="holds no scores"):
        made(source, samples, tmp_path / "out")


def test_an_old_operator_set_is_refused_with_what_to_do(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    proto = onnx.load(str(source))
    proto.opset_import[0].version = 12
    onnx.save(proto, str(source))
    with pytest.raises(TransformFailed, match="raise_opset first"):
        made(source, samples, tmp_path / "out")
