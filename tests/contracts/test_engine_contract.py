"""Every engine keeps the same promises. A new engine is held to them by its row in the registry alone."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
import psutil
import pytest
from tests.engine.subjects import copy_of, linear_for, sample_of

from hasten.engine.base import Session, engines, why_unprofiled
from hasten.engine.denormals import denormals
from hasten.engine.isolate import IsolatedSession, load_isolated
from hasten.errors import EngineLoadError, EngineRunError
from hasten.spec.target import RUNTIME_KNOBS, Runtime, Target
from hasten.spec.tensor import DType

NAMES = [entry.name for entry in engines.entries(hidden=True)]
DTYPES: tuple[DType, ...] = get_args(DType)
# Element types that an engine refuses with words: OpenVINO's binding corrupts memory on strings, and LiteRT's
# interpreter gives numpy no way to bfloat16.
CANNOT: set[tuple[str, DType]] = {("openvino", "BYTES"), ("litert", "BF16")}
# PyTorch has no tensors of strings, so that no such program can be written.
TYPED = [(name, dtype) for name in NAMES for dtype in DTYPES if (name, dtype) != ("torch", "BYTES")]
# One knob at a time, turned to something else than its default; two of them need company.
TURNED: dict[str, Runtime] = {
    "instances": Runtime(instances=2),
    "execution": Runtime(execution="parallel"),
    "inter_threads": Runtime(inter_threads=2, execution="parallel"),
    "arena": Runtime(arena=False),
    "memory_pattern": Runtime(memory_pattern=False),
    "io_binding": Runtime(io_binding=True),
    "share_weights": Runtime(share_weights=True, instances=2),
    "flush_denormals": Runtime(flush_denormals=True),
    "spin": Runtime(spin=False),
    "batch": Runtime(batch=2),
    "cascade_below": Runtime(cascade_below=0.1),
    "single_row": Runtime(single_row=True),
    "lengths": Runtime(lengths=(8,)),
}
# Knobs that need another kind of model, with a word of the refusal of this one.
REFUSED = {"lengths": "token sequences"}


@pytest.fixture(scope="module", params=NAMES)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def subject(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return linear_for(engine, tmp_path_factory.mktemp(engine))


@pytest.fixture(scope="module")
def isolated(engine: str, subject: Path) -> Iterator[IsolatedSession]:
    """One worker for the tests that leave it as they found it."""
    with load_isolated(subject, Target(engine=engine, threads=1)) as session:
        yield session


@contextlib.contextmanager
def loaded(engine: str, path: Path, **options: Any) -> Iterator[Session]:
    # An engine may switch the thread's mode for subnormal numbers, which must not reach other tests.
    with denormals(False):
        session = engines.get(engine).load(path, Target(engine=engine, threads=1, **options))
        try:
            yield session
        finally:
            session.close()


def rows(count: int, seed: int = 1) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


def answer(session: Session, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    [value] = session.run({"x": x}).values()
    return value


def test_a_probe_names_the_cpu_its_precisions_and_how_far_it_was_checked(engine: str) -> None:
    device = engines.get(engine).probe().device("CPU")
    assert device is not None
    assert "f32" in device.precisions
    assert device.support == "runs here"


def test_whatever_a_probe_misses_has_a_reason_and_says_what_to_do(engine: str) -> None:
    for absent in engines.get(engine).probe().absent:
        assert absent.reason
        assert absent.remedy
        assert absent.support == "not run on hardware"


def test_the_signature_has_the_models_names_and_types(isolated: IsolatedSession) -> None:
    [x], [y] = isolated.signature.inputs, isolated.signature.outputs
    assert (x.name, x.dtype, x.shape[1], y.dtype) == ("x", "FP32", 4, "FP32")
    assert isinstance(x.shape[0], str)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_batches_of_any_size_answer_row_by_row(isolated: IsolatedSession, batch: int) -> None:
    x = rows(batch)
    alone = np.concatenate([answer(isolated, x[i : i + 1]) for i in range(batch)])
    np.testing.assert_allclose(answer(isolated, x), alone, rtol=1e-5, atol=1e-6)


def test_an_empty_batch_gives_an_empty_answer_or_is_refused_in_words(isolated: IsolatedSession) -> None:
    try:
        assert answer(isolated, rows(0)).shape == (0, 3)
    except EngineRunError as error:
        assert error.message
    assert answer(isolated, rows(1)).shape == (1, 3)


def test_all_engines_give_the_same_answers(isolated: IsolatedSession, tmp_path: Path) -> None:
    x = rows(5)
    with loaded("onnxruntime", linear_for("onnxruntime", tmp_path)) as reference:
        np.testing.assert_allclose(answer(isolated, x), answer(reference, x), rtol=1e-4, atol=1e-5)


def test_the_precision_in_use_is_read_back(isolated: IsolatedSession) -> None:
    assert isolated.precision == "f32"


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": np.zeros((1, 5), np.float32)},
        {"x": np.zeros(4, np.float32)},
        {"x": np.zeros((1, 4), np.float64)},
        {"x": np.zeros((1, 4), np.int32)},
        {},
        {"x": np.zeros((1, 4), np.float32), "z": np.zeros((1, 4), np.float32)},
        {"z": np.zeros((1, 4), np.float32)},
    ],
    ids=["width", "rank", "double", "integer", "missing", "unknown", "other"],
)
def test_inputs_that_do_not_fit_are_an_error_and_the_session_lives_on(
    isolated: IsolatedSession, inputs: dict[str, np.ndarray[Any, Any]]
) -> None:
    with pytest.raises(EngineRunError):
        isolated.run(inputs)
    assert answer(isolated, rows(1)).shape == (1, 3)


@pytest.mark.parametrize("keep", [0, 10, -20], ids=["nothing", "head", "no tail"])
def test_a_file_that_was_cut_off_is_refused(
    isolated: IsolatedSession, subject: Path, keep: int, tmp_path: Path
) -> None:
    path = tmp_path / subject.name
    path.write_bytes(subject.read_bytes()[:keep])
    with pytest.raises(EngineLoadError):
        isolated.load(path, 60)
    assert answer(isolated, rows(1)).shape == (1, 3)


def test_a_file_of_noise_is_refused(isolated: IsolatedSession, subject: Path, tmp_path: Path) -> None:
    path = tmp_path / subject.name
    path.write_bytes(np.random.default_rng(0).bytes(4000))
    with pytest.raises(EngineLoadError):
        isolated.load(path, 60)
    assert answer(isolated, rows(1)).shape == (1, 3)


def test_a_device_that_does_not_exist_is_refused(engine: str, subject: Path) -> None:
    with pytest.raises(EngineLoadError):
        engines.get(engine).load(subject, Target(engine=engine, device="NOWHERE"))


@pytest.mark.parametrize(("name", "dtype"), TYPED)
def test_every_element_type_comes_back_bit_for_bit_or_is_refused_in_words(
    name: str, dtype: DType, tmp_path: Path
) -> None:
    x, path = sample_of(dtype), copy_of(name, tmp_path, dtype)
    if (name, dtype) in CANNOT:
        with pytest.raises(EngineLoadError) as caught:
            engines.get(name).load(path, Target(engine=name))
        assert caught.value.remedy
        return
    with loaded(name, path) as session:
        assert session.signature.inputs[0].dtype == dtype
        y = answer(session, x)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, x)


# The models of other engines have a fixed, small shape.
@pytest.mark.parametrize(
    ("name", "dtype"), [one for one in TYPED if one not in CANNOT and "onnx" in engines.get(one[0]).formats]
)
def test_large_answers_of_every_element_type_stay_right_run_after_run(name: str, dtype: DType, tmp_path: Path) -> None:
    """Where answers go in shared memory is known from the second run on."""
    x = np.tile(sample_of(dtype), (70_000, 1))
    with load_isolated(copy_of(name, tmp_path, dtype), Target(engine=name, threads=1)) as session:
        for run in range(3):
            turned = np.ascontiguousarray(np.roll(x, run, axis=0))
            np.testing.assert_array_equal(answer(session, turned), turned)


@pytest.mark.parametrize("name", [name for name in NAMES if "onnx" in engines.get(name).formats])
@pytest.mark.parametrize(("shape", "x"), [((), np.float32(3)), (("n",), np.arange(3.0)), (("a", 1, "b", "c"), None)])
def test_any_number_of_axes_is_carried(name: str, shape: tuple[int | str, ...], x: Any, tmp_path: Path) -> None:
    array = np.ones((2, 1, 3, 4), np.float32) if x is None else np.asarray(x, np.float32)
    with loaded(name, copy_of(name, tmp_path, "FP32", shape)) as session:
        y = answer(session, array)
    assert y.shape == array.shape
    np.testing.assert_array_equal(y, array)


def test_outputs_are_not_overwritten_by_the_next_run(engine: str, subject: Path) -> None:
    with loaded(engine, subject) as session:
        first = answer(session, rows(2))
        kept = first.copy()
        answer(session, rows(2) * 9)
        np.testing.assert_array_equal(first, kept)


def test_inputs_are_left_as_they_were(engine: str, subject: Path) -> None:
    x = rows(3)
    with loaded(engine, subject) as session:
        answer(session, x)
    np.testing.assert_array_equal(x, rows(3))


def test_two_callers_never_get_each_others_answers(engine: str, subject: Path) -> None:
    if "instances" not in engines.get(engine).honours:
        with pytest.raises(EngineLoadError, match="no runtime knob 'instances'"):
            engines.get(engine).load(subject, Target(engine=engine, runtime=Runtime(instances=2)))
        return
    inputs = [rows(1 + n % 3, seed=n) for n in range(60)]
    with loaded(engine, subject, runtime=Runtime(instances=2)) as session:
        alone = [answer(session, x) for x in inputs]
        with ThreadPoolExecutor(2) as callers:
            together = list(callers.map(lambda x: answer(session, x), inputs))
    for got, wanted in zip(together, alone, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_a_table_turns_each_runtime_knob() -> None:
    assert tuple(TURNED) == RUNTIME_KNOBS
    assert all(name in runtime.turned() for name, runtime in TURNED.items())


@pytest.mark.parametrize("knob", RUNTIME_KNOBS)
def test_a_knob_changes_no_answer_or_is_refused_by_name(engine: str, subject: Path, knob: str) -> None:
    x = rows(2)
    runtime = TURNED[knob]
    if not runtime.turned() <= engines.get(engine).honours:
        with pytest.raises(EngineLoadError, match="has no runtime knob"):
            engines.get(engine).load(subject, Target(engine=engine, runtime=runtime))
        return
    if knob in REFUSED:
        with pytest.raises(EngineLoadError, match=REFUSED[knob]):
            engines.get(engine).load(subject, Target(engine=engine, runtime=runtime))
        return
    with loaded(engine, subject) as plain, loaded(engine, subject, runtime=runtime) as turned:
        for _ in range(2):
            np.testing.assert_allclose(answer(turned, x), answer(plain, x), rtol=1e-5, atol=1e-6)


def test_a_session_may_be_closed_twice_and_runs_no_more(engine: str, subject: Path) -> None:
    session = engines.get(engine).load(subject, Target(engine=engine, threads=1))
    session.close()
    session.close()
    with pytest.raises(EngineRunError):
        session.run({"x": rows(1)})


def test_closing_gives_memory_and_threads_back(engine: str, subject: Path) -> None:
    me = psutil.Process()

    def use() -> None:
        with loaded(engine, subject) as session:
            answer(session, rows(64))

    for _ in range(3):
        use()
    gc.collect()
    memory, threads = me.memory_info().rss, me.num_threads()
    for _ in range(20):
        use()
    gc.collect()
    assert me.memory_info().rss - memory < 24 * 2**20
    assert me.num_threads() <= threads + 2


def test_timing_gives_one_positive_time_for_each_run(isolated: IsolatedSession) -> None:
    isolated.put(0, {"x": rows(1)})
    times = isolated.time_ms([0, 0, 0], warmup=1)
    assert len(times) == 3
    assert all(time > 0 for time in times)


def test_throughput_counts_the_runs_of_all_callers(isolated: IsolatedSession) -> None:
    isolated.put(0, {"x": rows(1)})
    assert isolated.throughput_rps([0], callers=2, runs=10) > 0


def test_peak_memory_is_that_of_the_worker(isolated: IsolatedSession) -> None:
    assert 10 < isolated.peak_memory_mb() < 2000


def test_an_engine_times_its_operators_or_says_why_not(isolated: IsolatedSession, engine: str) -> None:
    isolated.put(0, {"x": rows(1)})
    reason = why_unprofiled(engines.get(engine))
    if reason is not None:
        with pytest.raises(EngineLoadError) as caught:
            isolated.profile([0])
        assert (caught.value.message, caught.value.code) == (reason, "no_profiler")
        return
    found = isolated.profile([0, 0, 0], warmup=1)
    assert len(found.wall_us) == 3
    assert {len(item.us) for item in found.operators} == {1 if found.averaged else 3}
    assert any(item.matrix for item in found.operators)
    assert all(us >= 0 for item in found.operators for us in item.us)


def test_a_model_that_was_profiled_still_answers(isolated: IsolatedSession, engine: str) -> None:
    isolated.put(0, {"x": rows(1)})
    before = answer(isolated, rows(2)).copy()
    if why_unprofiled(engines.get(engine)) is None:
        isolated.profile([0])
    np.testing.assert_allclose(answer(isolated, rows(2)), before, rtol=1e-6)
