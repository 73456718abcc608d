"""Graphs of fixed shape for single rows: the answers stay, and what does not fit runs as before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.engine.base import engines
from hasten.engine.openvino import OpenVinoSession
from hasten.errors import EngineLoadError, EngineRunError
from hasten.spec.target import Runtime, Target

LENGTHS = (4, 8)
# What is profiled has a graph for each length, which tells where a row ran.
APART = {"PERF_COUNT": True}
# The mean of an embedding over what the mask says is text: long enough that padding which counts would show.
POOLED = """(int64[n, s] ids, int64[n, s] attention_mask) => (float[n, 3] y)
<float[6, 3] table = {0.1, 0.2, 0.3, 1, 2, 3, -1, 0.5, 2, 0.7, 0.9, 0.4, 5, -4, 3, 0.25, 0.5, 8}> {
  rows = Gather(table, ids)
  weights = Cast<to = 1>(attention_mask)
  last = Constant<value = int64[1] {-1}>()
  column = Unsqueeze(weights, last)
  middle = Constant<value = int64[1] {1}>()
  weighed = Mul(rows, column)
  sum = ReduceSum<keepdims = 0>(weighed, middle)
  count = ReduceSum<keepdims = 0>(column, middle)
  y = Div(sum, count)
}"""


def save(path: Path, text: str) -> Path:
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {text}'), str(path))
    return path


def load(path: Path, lengths: tuple[int, ...] = (), **more: Any) -> OpenVinoSession:
    knobs = {name: more.pop(name) for name in ("instances", "cascade_below", "single_row") if name in more}
    target = Target(engine="openvino", threads=1, runtime=Runtime(lengths=lengths, **knobs), **more)
    session = engines.get("openvino").load(path, target)
    assert isinstance(session, OpenVinoSession)
    return session


def tokens(held: int, sent: int, rows: int = 1, seed: int = 0) -> dict[str, Any]:
    """`held` tokens in rows of `sent` positions; what stands behind the text is noise that no answer may show."""
    ids = np.random.default_rng(seed).integers(0, 6, (rows, sent))
    return {"ids": ids, "attention_mask": np.tile(np.arange(sent) < held, (rows, 1)).astype(np.int64)}


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("lengths") / "pooled.onnx", POOLED)


@pytest.fixture(scope="module")
def both(pooled: Path) -> tuple[OpenVinoSession, OpenVinoSession]:
    return load(pooled), load(pooled, LENGTHS)


@given(held=st.integers(1, 12), padding=st.integers(0, 12), rows=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_answers_are_those_of_the_open_graph(
    both: tuple[OpenVinoSession, OpenVinoSession], held: int, padding: int, rows: int, seed: int
) -> None:
    plain, fitted = both
    inputs = tokens(held, held + padding, rows, seed)
    np.testing.assert_allclose(fitted.run(inputs)["y"], plain.run(inputs)["y"], rtol=1e-5, atol=1e-6)


def ran(session: OpenVinoSession) -> list[int]:
    """Runs of each fixed graph, and those of the open one."""
    assert session._fixed is not None
    return [*session._fixed._runs, session._runs]


@pytest.mark.parametrize(
    ("inputs", "where"),
    [
        (tokens(4, 4), [1, 0, 0]),
        (tokens(2, 3), [1, 0, 0]),
        (tokens(5, 5), [0, 1, 0]),
        (tokens(3, 100), [1, 0, 0]),
        (tokens(9, 9), [0, 0, 1]),
        (tokens(4, 4, rows=2), [0, 0, 1]),
        (tokens(0, 6), [1, 0, 0]),
    ],
    ids=["exactly", "padded up", "next", "padding cut", "too long", "batch", "nothing but padding"],
)
def test_one_row_runs_at_the_next_length_and_all_else_as_before(
    pooled: Path, inputs: dict[str, Any], where: list[int]
) -> None:
    session = load(pooled, LENGTHS, options=APART)
    session.run(inputs)
    assert ran(session) == where


def test_what_an_earlier_row_left_behind_is_not_seen(pooled: Path) -> None:
    session = load(pooled, LENGTHS)
    alone = load(pooled, LENGTHS).run(tokens(2, 2))["y"]
    session.run(tokens(4, 4, seed=9))
    np.testing.assert_array_equal(session.run(tokens(2, 2))["y"], alone)


def test_inputs_of_different_lengths_are_left_to_the_runtime(pooled: Path) -> None:
    session = load(pooled, LENGTHS)
    inputs = {**tokens(3, 3), "attention_mask": np.ones((1, 1), np.int64)}
    np.testing.assert_allclose(session.run(inputs)["y"], load(pooled).run(inputs)["y"], rtol=1e-6)
    assert ran(session) == [0, 1]


def test_lengths_go_together_with_a_cascade(pooled: Path) -> None:
    if "bf16" not in engines.get("openvino").probe().device("CPU").precisions:  # type: ignore[union-attr]
        pytest.skip("this processor computes in f32 only")
    inputs = tokens(3, 3, seed=4)
    full = load(pooled).run(inputs)["y"]
    found = load(pooled, LENGTHS, precision="bf16", cascade_below=1e6).run(inputs)["y"]
    np.testing.assert_allclose(found, full, rtol=1e-6)


def test_a_closed_session_says_so(pooled: Path) -> None:
    session = load(pooled, LENGTHS)
    session.close()
    with pytest.raises(EngineRunError, match="closed"):
        session.run(tokens(2, 2))


def test_operators_are_timed_over_all_graphs_that_ran(pooled: Path) -> None:
    target = Target(engine="openvino", threads=1, runtime=Runtime(lengths=LENGTHS))
    samples = [tokens(3, 3), tokens(7, 7), tokens(9, 9)]
    seen = engines.get("openvino").profile(pooled, target, samples, warmup=2)
    assert len(seen.wall_us) == 3
    assert seen.operators


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(float[n, s] x, int64[n, s] mask) => (float[n, s] y) { y = Identity(x) }", "no token sequences"),
        ("(int64[n, 7] ids, int64[n, 7] mask) => (int64[n, 7] y) { y = Add(ids, mask) }", "no token sequences"),
        ("(int64[n, s] ids, int64[n, s] kind) => (int64[n, 1] y) { a = Add(ids, kind) "
         "i = Constant<value = int64[1] {1}>() y = ReduceSum(a, i) }", "attention mask"),
        ("(int64[n, s] ids, int64[n, s] mask) => (int64[n, s] y) { y = Add(ids, mask) }", "for each position"),
    ],
    ids=["floats", "fixed length", "no mask", "an answer for each token"],
)  # fmt: skip
def test_models_whose_padding_cannot_be_told_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(EngineLoadError, match=message) as caught:
        load(save(tmp_path / "other.onnx", text), LENGTHS)
    assert "Leave lengths empty" in str(caught.value.remedy)


def test_a_length_below_one_is_refused_when_it_is_read() -> None:
    import msgspec

    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"lengths": [0]}, Runtime)


@pytest.mark.parametrize(("rows", "where"), [(1, [1, 0]), (3, [0, 1])])
def test_one_row_has_a_graph_of_its_own_and_batches_the_open_one(pooled: Path, rows: int, where: list[int]) -> None:
    session, inputs = load(pooled, single_row=True), tokens(3, 5, rows)
    np.testing.assert_allclose(session.run(inputs)["y"], load(pooled).run(inputs)["y"], rtol=1e-6)
    assert ran(session) == where


def test_a_single_row_and_a_batch_keep_apart_among_callers(pooled: Path) -> None:
    session = load(pooled, single_row=True, instances=2)
    inputs = [tokens(1 + at % 4, 5, 1 + at % 2, seed=at) for at in range(40)]
    wanted = [load(pooled).run(one)["y"] for one in inputs[:4]]
    with ThreadPoolExecutor(2) as callers:
        found = list(callers.map(lambda one: session.run(one)["y"], inputs))
    for got, right in zip(found, wanted, strict=False):
        np.testing.assert_allclose(got, right, rtol=1e-6)
    assert ran(session) == [20, 20]


def test_a_model_without_an_open_batch_has_no_single_row_to_fix(tmp_path: Path) -> None:
    path = save(tmp_path / "one.onnx", "(float[1, 4] x) => (float[1, 4] y) { y = Relu(x) }")
    with pytest.raises(EngineLoadError, match="no open batch axis") as caught:
        load(path, single_row=True)
    assert "Leave single_row off" in str(caught.value.remedy)
