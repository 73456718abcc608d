"""ONNX Runtime: each knob has its effect, the precision is that of the graph, and no provider falls away unseen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

from hasten.engine import onnxruntime_providers as providers
from hasten.engine.base import Absent, Device, engines
from hasten.engine.denormals import can_flush
from hasten.engine.isolate import load_isolated
from hasten.engine.onnx_head import leading_axes
from hasten.engine.onnxruntime import OnnxRuntimeSession
from hasten.errors import EngineLoadError, EngineRunError
from hasten.spec.target import Runtime, Target

Make = Callable[..., Path]
RNG = np.random.default_rng(0)


def load(path: Path, *, threads: int = 1, device: str = "CPU", **knobs: Any) -> OnnxRuntimeSession:
    target = Target(engine="onnxruntime", threads=threads, device=device, runtime=Runtime(**knobs))
    session = engines.get("onnxruntime").load(path, target)
    assert isinstance(session, OnnxRuntimeSession)
    return session


def options_of(session: OnnxRuntimeSession) -> Any:
    """The options that the runtime kept, read back."""
    return session._sessions[0].get_session_options()


def save(path: Path, text: str, **weights: np.ndarray[Any, Any]) -> Path:
    """Write a model from ONNX's text form, with weights by name."""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in weights.items())
    onnx.save(proto, str(path))
    return path


@pytest.fixture
def picture_model(tmp_path: Path) -> Path:
    """A convolution over 8 x 8 pictures and a matrix product."""
    text = """(float[n,16,8,8] x) => (float[n,5] y) {
        c = Conv<pads = [1, 1, 1, 1]>(x, K) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p) y = MatMul(f, V) }"""
    kernel, last = RNG.normal(size=(32, 16, 3, 3)), RNG.normal(size=(32, 5))
    return save(tmp_path / "picture.onnx", text, K=kernel.astype(np.float32), V=last.astype(np.float32))


# Knobs


@pytest.mark.parametrize("threads", [1, 2])
def test_the_threads_of_a_session_are_those_that_were_asked_for(make_linear: Make, threads: int) -> None:
    assert options_of(load(make_linear(), threads=threads)).intra_op_num_threads == threads


def test_every_thread_but_the_callers_is_one_of_the_process(make_linear: Make) -> None:
    path = make_linear()
    counts: list[int] = []
    for threads in (1, 2, 4):
        with load_isolated(path, Target(engine="onnxruntime", threads=threads)) as session:
            session.run({"x": np.ones((1, 4), np.float32)})
            counts.append(psutil.Process(session.pid).num_threads())
    assert [count - counts[0] for count in counts] == [0, 1, 3]


def test_parallel_execution_has_threads_of_its_own(make_linear: Make) -> None:
    options = options_of(load(make_linear(), execution="parallel", inter_threads=2))
    assert options.execution_mode == ort.ExecutionMode.ORT_PARALLEL
    assert options.inter_op_num_threads == 2


def test_threads_between_branches_that_never_run_side_by_side_are_refused(make_linear: Make) -> None:
    with pytest.raises(EngineLoadError, match="inter_threads") as caught:
        load(make_linear(), inter_threads=2)
    assert "parallel" in caught.value.remedy


def test_arena_and_memory_pattern_are_switched_off(make_linear: Make) -> None:
    path = make_linear()
    plain, lean = options_of(load(path)), options_of(load(path, arena=False, memory_pattern=False))
    assert (plain.enable_cpu_mem_arena, plain.enable_mem_pattern) == (True, True)
    assert (lean.enable_cpu_mem_arena, lean.enable_mem_pattern) == (False, False)


@pytest.mark.parametrize("pool", ["intra_op", "inter_op"])
def test_threads_that_shall_not_spin_do_not(make_linear: Make, pool: str) -> None:
    options = options_of(load(make_linear(), spin=False))
    assert options.get_session_config_entry(f"session.{pool}.allow_spinning") == "0"


def test_instances_are_sessions_and_sharing_weights_makes_them_one(make_linear: Make) -> None:
    path = make_linear()
    assert len(load(path, instances=3)._sessions) == 3
    shared = load(path, instances=3, share_weights=True, threads=2)
    assert len(shared._sessions) == 1
    assert options_of(shared).intra_op_num_threads == 6


def test_a_shared_session_serves_all_its_callers_at_once(make_linear: Make) -> None:
    session = load(make_linear(), instances=2, share_weights=True)
    with session._pool.take() as one, session._pool.take() as other:
        assert one is other


@pytest.mark.skipif(not can_flush(), reason="this system cannot flush subnormal numbers for a thread")
@pytest.mark.parametrize("knobs", [{}, {"io_binding": True}, {"instances": 2}])
def test_subnormal_numbers_are_flushed_on_every_thread_and_stay_elsewhere(tmp_path: Path, knobs: Any) -> None:
    path = save(
        tmp_path / "half.onnx", "(float[n] x) => (float[n] y) { h = Constant<value = float {0.5}>() y = Mul(x, h) }"
    )
    # Large enough that the runtime's own threads take a part.
    tiny = np.full(200_000, 1e-39, np.float32)
    plain, flushed = load(path, threads=2), load(path, threads=2, flush_denormals=True, **knobs)
    assert plain.run({"x": tiny})["y"].min() > 0
    answers = [flushed.run({"x": tiny})["y"]]
    thread = threading.Thread(target=lambda: answers.append(flushed.run({"x": tiny})["y"]))
    thread.start()
    thread.join()
    assert [float(answer.max()) for answer in answers] == [0, 0]
    assert (tiny * np.float32(0.5)).min() > 0, "the caller's own mode is as it was"


def test_a_batch_is_compiled_in_and_others_are_refused(make_linear: Make) -> None:
    session = load(make_linear(), batch=4)
    assert session.signature.inputs[0].shape == (4, 4)
    assert session.run({"x": np.ones((4, 4), np.float32)})["y"].shape == (4, 3)
    with pytest.raises(EngineRunError, match="has 2 at axis 0"):
        session.run({"x": np.ones((2, 4), np.float32)})


def test_a_batch_other_than_the_models_fixed_one_is_refused(make_linear: Make) -> None:
    path = make_linear(batch=2)
    assert load(path, batch=2).signature.inputs[0].shape == (2, 4)
    with pytest.raises(EngineLoadError, match="batches of 3"):
        load(path, batch=3)


def test_a_batch_for_an_axis_without_a_name_is_refused(tmp_path: Path) -> None:
    proto = onnx.load(str(save(tmp_path / "m.onnx", "(float[n] x) => (float[n] y) { y = Relu(x) }")))
    proto.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    onnx.save(proto, str(tmp_path / "m.onnx"))
    with pytest.raises(EngineLoadError, match="no named leading axis"):
        load(tmp_path / "m.onnx", batch=2)


# Bound buffers


def test_outputs_are_written_where_they_were_allocated_before(make_linear: Make) -> None:
    session = load(make_linear(), io_binding=True)
    x = RNG.normal(size=(3, 4)).astype(np.float32)
    plain = load(make_linear()).run({"x": x})["y"]
    places: list[int] = []
    for _ in range(2):
        np.testing.assert_array_equal(session.run({"x": x})["y"], plain)
        with session._pool.take() as binding:
            places.append(binding.buffers["y"].ctypes.data)
    assert places[0] == places[1]


def test_buffers_follow_the_shapes_of_the_inputs(make_linear: Make) -> None:
    session, plain = load(make_linear(), io_binding=True), load(make_linear())
    for rows in (3, 1, 0, 5, 5):
        x = RNG.normal(size=(rows, 4)).astype(np.float32)
        np.testing.assert_allclose(session.run({"x": x})["y"], plain.run({"x": x})["y"], rtol=1e-6)


def test_an_output_whose_size_depends_on_values_is_left_to_the_runtime(tmp_path: Path) -> None:
    path = save(tmp_path / "found.onnx", "(float[n] x) => (int64[1,found] y) { y = NonZero(x) }")
    session = load(path, io_binding=True)
    for x in ([1, 0, 1], [0, 0, 1], [1, 1, 1]):
        assert session.run({"x": np.array(x, np.float32)})["y"].tolist() == [np.flatnonzero(x).tolist()]


def test_a_name_that_promises_a_wrong_size_costs_the_buffer_and_no_answer(tmp_path: Path) -> None:
    path = save(tmp_path / "liar.onnx", "(float[n] x) => (int64[1,n] y) { y = NonZero(x) }")
    session = load(path, io_binding=True)
    for x in ([1, 1, 1], [0, 0, 1], [1, 0, 1]):
        assert session.run({"x": np.array(x, np.float32)})["y"].tolist() == [np.flatnonzero(x).tolist()]


def test_an_array_that_is_not_contiguous_is_bound_right(make_linear: Make) -> None:
    x = RNG.normal(size=(4, 6)).astype(np.float32).T[::2][:2]
    session, plain = load(make_linear(), io_binding=True), load(make_linear())
    np.testing.assert_array_equal(session.run({"x": x})["y"], plain.run({"x": np.ascontiguousarray(x)})["y"])


def test_strings_cannot_be_bound(tmp_path: Path) -> None:
    path = save(tmp_path / "text.onnx", "(string[n] x) => (string[n] y) { y = Identity(x) }")
    with pytest.raises(EngineLoadError, match="binds no buffers for strings"):
        load(path, io_binding=True)


# Precision


class Pictures(CalibrationDataReader):
    """Three random pictures."""

    def __init__(self) -> None:
        self._left = iter([{"x": RNG.normal(size=(1, 16, 8, 8)).astype(np.float32)} for _ in range(3)])

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        return next(self._left, None)


@pytest.mark.filterwarnings("ignore")
def test_the_precision_is_that_of_the_arithmetic_in_the_optimized_graph(picture_model: Path, tmp_path: Path) -> None:
    static, dynamic = tmp_path / "static.onnx", tmp_path / "dynamic.onnx"
    quantize_static(str(picture_model), str(static), Pictures())
    quantize_dynamic(str(picture_model), str(dynamic), weight_type=QuantType.QUInt8)
    assert [load(path).precision for path in (picture_model, static, dynamic)] == ["f32", "int8", "int8"]


def test_a_quantized_file_whose_kernels_did_not_become_integer_is_read_back_as_f32(tmp_path: Path) -> None:
    text = """(float[n,8,4,4] x) => (float[n,8,4,4] y) {
        w = DequantizeLinear(W, s) y = Conv(x, w) }"""
    path = save(tmp_path / "w.onnx", text, W=np.ones((8, 8, 1, 1), np.int8), s=np.array(0.1, np.float32))
    target = Target(engine="onnxruntime", precision="int8", threads=1)
    assert engines.get("onnxruntime").load(path, target).precision == "f32"


def test_an_output_with_a_buffer_and_one_without_keep_their_places(tmp_path: Path) -> None:
    path = save(
        tmp_path / "two.onnx",
        "(float[n] x) => (int64[1,found] a, float[n] b, int64[1,more] c) "
        "{ a = NonZero(x) b = Neg(x) n = Relu(b) c = NonZero(n) }",
    )
    session, plain = load(path, io_binding=True), load(path)
    for values in ([1, 0, -1], [0, 2, 3], [-4, -4, -4], [1, 2]):
        x = np.array(values, np.float32)
        got, wanted = session.run({"x": x}), plain.run({"x": x})
        assert {name: value.tolist() for name, value in got.items()} == {
            name: value.tolist() for name, value in wanted.items()
        }


def test_a_product_with_weights_of_four_bits_is_read_back_as_int4(tmp_path: Path) -> None:
    node = helper.make_node(
        "MatMulNBits", ["x", "W", "s"], ["y"], domain="com.microsoft", K=32, N=16, bits=4, block_size=32
    )
    graph = helper.make_graph(
        [node],
        "four",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])],
        [
            numpy_helper.from_array(np.zeros((16, 1, 16), np.uint8), "W"),
            numpy_helper.from_array(np.ones(16, np.float32), "s"),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(tmp_path / "four.onnx"))
    assert load(tmp_path / "four.onnx").precision == "int4"


def test_arithmetic_inside_branches_counts(tmp_path: Path) -> None:
    text = """(bool c, float[n,8] x) => (float[n,8] y) {
        y = If(c) <then_branch = a () => (float[n,8] p) { p = MatMul(x, W) },
                   else_branch = b () => (float[n,8] q) { q = Identity(x) }> }"""
    path = save(tmp_path / "if.onnx", text, W=np.ones((8, 8), np.float32))
    assert load(path).precision == "f32"


# Providers


def test_each_provider_is_a_device_or_says_why_not(make_linear: Make) -> None:
    probe = engines.get("onnxruntime").probe()
    named = [item.name for item in (*probe.devices, *probe.absent)]
    assert sorted(named) == sorted(row.device for row in providers.PROVIDERS)


@pytest.mark.parametrize("row", providers.PROVIDERS[1:], ids=lambda row: row.device)
def test_a_provider_that_this_build_lacks_is_refused_with_what_to_type(make_linear: Make, row: Any) -> None:
    if row.name in ort.get_available_providers():
        assert providers.probe_provider(row, "").support == "not run on hardware"
        return
    with pytest.raises(EngineLoadError, match=row.name) as caught:
        load(make_linear(), device=row.device)
    assert caught.value.remedy == row.remedy


def test_a_provider_in_the_build_without_its_device_is_not_called_available(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = providers.provider_for("CUDA")
    assert cuda is not None
    monkeypatch.setattr(ort, "get_available_providers", lambda: [cuda.name, "CPUExecutionProvider"])

    class Fallen:
        def __init__(self, *_: Any, **options: Any) -> None:
            assert options["enable_fallback"] is False

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(ort, "InferenceSession", Fallen)
    found = providers.probe_provider(cuda, "")
    assert isinstance(found, Absent)
    assert "found no device" in found.reason


def test_a_session_that_fell_back_to_the_cpu_is_refused(make_linear: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    real = ort.InferenceSession
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])

    def fallen(model: Any, options: Any, **_: Any) -> Any:
        return real(model, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "InferenceSession", fallen)
    with pytest.raises(EngineLoadError, match="CUDAExecutionProvider fell away"):
        load(make_linear(), device="CUDA")


def test_a_precision_that_a_provider_cannot_be_held_to_is_refused(
    make_linear: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["TensorrtExecutionProvider"])
    with pytest.raises(EngineLoadError, match="cannot be held to f32"):
        load(make_linear(), device="TENSORRT")


def test_the_cpu_is_described_by_its_processor() -> None:
    [cpu] = [item for item in engines.get("onnxruntime").probe().devices if item.name == "CPU"]
    assert isinstance(cpu, Device)
    assert cpu.detail


# The head of a file


def test_leading_axes_are_read_without_the_weights(picture_model: Path) -> None:
    assert leading_axes(picture_model) == {"x": "n"}


def test_weights_among_the_inputs_are_no_inputs(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx", "(float[4] x, float[4] w) => (float[4] y) { y = Add(x, w) }", w=np.ones(4, np.float32)
    )
    assert leading_axes(path) == {"x": 4}


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_head_that_is_cut_off_is_an_error_of_the_file(picture_model: Path, cut: int) -> None:
    picture_model.write_bytes(picture_model.read_bytes()[:-cut])
    with pytest.raises(ValueError, match="ends inside"):
        leading_axes(picture_model)
