"""Every engine keeps the same promises, run in a process of its own as everywhere in hasten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hasten.engine.base import engines
from hasten.engine.isolate import IsolatedSession, load_isolated
from hasten.errors import EngineLoadError, EngineRunError
from hasten.spec.target import Target

NAMES = [entry.name for entry in engines.entries(hidden=True)]
Make = Callable[..., Path]


@pytest.fixture(params=NAMES)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


def load(path: Path, engine: str, **options: object) -> IsolatedSession:
    return load_isolated(path, Target(engine=engine, **options))  # type: ignore[arg-type]


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 4)).astype(np.float32)


def test_a_probe_names_the_cpu_and_its_precisions(engine: str) -> None:
    device = engines.get(engine).probe().device("CPU")
    assert device is not None
    assert "f32" in device.precisions


def test_the_signature_has_the_models_names_and_types(engine: str, make_linear: Make) -> None:
    with load(make_linear(), engine) as session:
        assert [(s.name, s.dtype, s.shape[1]) for s in session.signature.inputs] == [("x", "FP32", 4)]
        assert [(s.name, s.dtype) for s in session.signature.outputs] == [("y", "FP32")]


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_batches_of_any_size_answer_row_by_row(engine: str, make_linear: Make, batch: int) -> None:
    x = rows(batch)
    with load(make_linear(), engine) as session:
        together = session.run({"x": x})["y"]
        alone = np.concatenate([session.run({"x": x[i : i + 1]})["y"] for i in range(batch)])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


def test_all_engines_give_the_same_answers(make_linear: Make) -> None:
    path, x, answers = make_linear(), rows(5), []
    for name in NAMES:
        with load(path, name) as session:
            answers.append(session.run({"x": x})["y"])
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], rtol=1e-4, atol=1e-5)


def test_the_precision_in_use_is_read_back(engine: str, make_linear: Make) -> None:
    with load(make_linear(), engine, threads=1) as session:
        assert session.precision == "f32"


def test_a_wrong_shape_is_an_engine_error_and_the_session_lives_on(engine: str, make_linear: Make) -> None:
    with load(make_linear(), engine) as session:
        with pytest.raises(EngineRunError):
            session.run({"x": np.zeros((1, 5), np.float32)})
        assert session.run({"x": rows(1)})["y"].shape == (1, 3)


def test_a_truncated_file_is_refused(engine: str, make_linear: Make) -> None:
    path = make_linear()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(EngineLoadError):
        load(path, engine)


def test_outputs_are_not_overwritten_by_the_next_run(engine: str, make_linear: Make) -> None:
    with load(make_linear(), engine) as session:
        first = session.run({"x": rows(2)})["y"]
        kept = first.copy()
        session.run({"x": rows(2) * 9})
        np.testing.assert_array_equal(first, kept)


def test_timing_gives_one_positive_time_for_each_run(engine: str, make_linear: Make) -> None:
    with load(make_linear(), engine) as session:
        session.put(0, {"x": rows(1)})
        times = session.time_ms([0, 0, 0], warmup=1)
    assert len(times) == 3
    assert all(time > 0 for time in times)


def test_peak_memory_is_that_of_the_worker(engine: str, make_linear: Make) -> None:
    with load(make_linear(), engine) as session:
        assert 10 < session.peak_memory_mb() < 2000
