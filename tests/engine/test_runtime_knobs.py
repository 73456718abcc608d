"""Runtime knobs reach onnxruntime and OpenVINO: read back from the runtime, or seen in what comes out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hasten.engine.base import engines
from hasten.engine.onnxruntime_options import provider_row, session_options
from hasten.errors import EngineLoadError
from hasten.spec.target import Runtime, Target

Make = Callable[..., Path]
BOTH = pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])


def rows(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


def load(path: Path, engine: str, **knobs: Any) -> Any:
    return engines.get(engine).load(path, Target(engine=engine, threads=1, runtime=Runtime(**knobs)))


def options_of(path: Path, **knobs: Any) -> Any:
    target = Target(engine="onnxruntime", threads=1, runtime=Runtime(**knobs))
    return session_options(path, target, provider_row(target))


def scaled(tiny: float, path: Path) -> Path:
    """y = x · k, where every element of k is `tiny`: subnormal for a small x, unless that is flushed."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "k"], ["y"])],
        "scaled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(np.full(4, tiny, np.float32), "k")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def test_onnxruntime_is_told_of_memory_threads_and_order(make_linear: Make) -> None:
    import onnxruntime as ort

    found = options_of(make_linear(), arena=False, memory_pattern=False, execution="parallel", inter_threads=2)
    assert (found.enable_cpu_mem_arena, found.enable_mem_pattern) == (False, False)
    assert (found.execution_mode, found.inter_op_num_threads) == (ort.ExecutionMode.ORT_PARALLEL, 2)


def test_onnxruntime_is_told_not_to_spin(make_linear: Make) -> None:
    found = options_of(make_linear(), spin=False)
    assert found.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert found.get_session_config_entry("session.inter_op.allow_spinning") == "0"


def test_inter_threads_without_parallel_branches_are_refused(make_linear: Make) -> None:
    with pytest.raises(EngineLoadError, match="inter_threads"):
        load(make_linear(), "onnxruntime", inter_threads=2)


def test_bound_outputs_follow_the_shape_and_are_not_overwritten(make_linear: Make) -> None:
    path = make_linear()
    plain, bound = load(path, "onnxruntime"), load(path, "onnxruntime", io_binding=True)
    batches = [rows(count, seed=count) for count in (1, 5, 2, 2)]
    got = [bound.run({"x": batch})["y"] for batch in batches]
    for batch, answer in zip(batches, got, strict=True):
        np.testing.assert_array_equal(answer, plain.run({"x": batch})["y"])
    plain.close()
    bound.close()


@BOTH
def test_a_fixed_batch_is_in_the_signature_and_other_sizes_are_refused(engine: str, make_linear: Make) -> None:
    session = load(make_linear(), engine, batch=3)
    assert session.signature.inputs[0].shape == (3, 4)
    assert session.run({"x": rows(3)})["y"].shape == (3, 3)
    session.close()
    with pytest.raises(EngineLoadError, match="batches of 3"):
        load(make_linear("fixed.onnx", batch=2), engine, batch=3)


@BOTH
def test_subnormal_numbers_become_zero_only_when_asked(engine: str, tmp_path: Path) -> None:
    path = scaled(2.0**-100, tmp_path / "scaled.onnx")
    feed = {"x": np.full((1, 4), 2.0**-40, np.float32)}
    flushed, kept = load(path, engine, flush_denormals=True), load(path, engine)
    assert not flushed.run(feed)["y"].any()
    assert kept.run(feed)["y"].all()
    flushed.close()
    kept.close()


@BOTH
def test_two_callers_at_once_get_their_own_answers(engine: str, make_linear: Make) -> None:
    session = load(make_linear(), engine, instances=2)
    batches = [rows(2, seed=1), rows(2, seed=2)]
    expected = [session.run({"x": batch})["y"] for batch in batches]
    crossed: list[int] = []

    def call(number: int) -> None:
        for _ in range(50):
            if not np.array_equal(session.run({"x": batches[number]})["y"], expected[number]):
                crossed.append(number)

    callers = [threading.Thread(target=call, args=(number,)) for number in (0, 1)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    session.close()
    assert crossed == []


def test_openvino_refuses_a_knob_that_it_does_not_obey(make_linear: Make) -> None:
    with pytest.raises(EngineLoadError, match="io_binding"):
        load(make_linear(), "openvino", io_binding=True)
