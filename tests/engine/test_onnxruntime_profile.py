"""Traces of ONNX Runtime, read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hasten.engine.isolate import load_isolated
from hasten.engine.onnxruntime_profile import operators_of
from hasten.errors import EngineRunError
from hasten.spec.target import Target


def run(ts: int, dur: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": dur, "tid": 1, "args": {}}


def kernel(name: str, kind: str, ts: int, dur: int, **args: str) -> dict[str, Any]:
    return {
        "cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "tid": 1, "args": {"op_name": kind, **args},
    }  # fmt: skip


def test_warm_runs_are_left_out_and_each_other_run_gives_a_time() -> None:
    events = [run(0, 50), kernel("a", "Relu", 1, 40), run(100, 20), kernel("a", "Relu", 101, 8), run(200, 20)]
    events += [kernel("a", "Relu", 203, 9)]
    [item] = operators_of(events, {"a": ("y",)}, skip=1, runs=2)
    assert (item.us, item.starts_us, item.tensors) == ((8.0, 9.0), (0.0, 102.0), ("y",))


def test_a_loop_is_charged_for_its_own_work_only_and_its_body_for_all_rounds() -> None:
    events = [run(0, 100), kernel("loop", "Loop", 10, 50)]
    events += [kernel("body", "Add", 12, 10), kernel("body", "Add", 30, 12)]
    loop, body = operators_of(events, {}, skip=0, runs=1)
    assert (loop.name, loop.us) == ("loop", (28.0,))
    assert (body.name, body.us) == ("body", (22.0,))


def test_a_node_whose_layout_changed_makes_the_tensor_that_it_is_named_after() -> None:
    events = [run(0, 9), kernel("conv_out_nchwc_token_12", "Conv", 1, 5)]
    [item] = operators_of(events, {"conv_out_nchwc_token_12": ("reorder_3",)}, skip=0, runs=1)
    assert item.tensors == ("conv_out",)
    assert item.matrix


def test_choosing_rows_reads_no_more_than_it_writes_and_views_move_nothing() -> None:
    sizes = {"activation_size": "8", "parameter_size": "4000000", "output_size": "400"}
    events = [run(0, 9), kernel("g", "Gather", 1, 2, **sizes), kernel("r", "Reshape", 4, 1, **sizes)]
    events += [kernel("e", "Exp", 6, 1, activation_size="400", parameter_size="0", output_size="400")]
    gather, reshape, exp = operators_of(events, {}, skip=0, runs=1)
    assert (gather.bytes_moved, reshape.bytes_moved, exp.bytes_moved) == (800, 0, 800)


def test_a_trace_that_lost_runs_is_an_error() -> None:
    with pytest.raises(EngineRunError, match="holds 1 of 3 runs"):
        operators_of([run(0, 9)], {}, skip=1, runs=2)


def test_a_real_trace_names_the_tensors_that_operators_make(make_linear: Callable[..., Path]) -> None:
    import numpy as np

    with load_isolated(make_linear(), Target(engine="onnxruntime", threads=1)) as session:
        session.put(0, {"x": np.ones((1, 4), np.float32)})
        [gemm] = session.profile([0] * 4, warmup=2).operators
    assert (gemm.kind, gemm.tensors, len(gemm.us), len(gemm.starts_us)) == ("Gemm", ("y",), 4, 4)
    assert gemm.starts_us == tuple(sorted(gemm.starts_us))
