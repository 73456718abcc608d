"""OpenVINO: streams, a fixed batch, flushed subnormals, pinned precision, and devices over devices."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from hasten.engine.base import engines
from hasten.engine.denormals import can_flush
from hasten.engine.openvino import OpenVinoSession
from hasten.errors import EngineLoadError, EngineRunError
from hasten.spec.target import Runtime, Target

Make = Callable[..., Path]


def load(path: Path, *, threads: int = 1, device: str = "CPU", precision: Any = "f32", **knobs: Any) -> OpenVinoSession:
    target = Target(engine="openvino", threads=threads, device=device, precision=precision, runtime=Runtime(**knobs))
    session = engines.get("openvino").load(path, target)
    assert isinstance(session, OpenVinoSession)
    return session


def save(path: Path, text: str) -> Path:
    onnx.save(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {text}'), str(path))
    return path


def kept(session: OpenVinoSession, name: str) -> Any:
    """A property as the compiled model has it, read back."""
    return session._compiled.get_property(name)


@pytest.mark.parametrize(("threads", "instances"), [(1, 1), (2, 1), (1, 2)])
def test_streams_and_threads_are_those_that_were_asked_for(make_linear: Make, threads: int, instances: int) -> None:
    session = load(make_linear(), threads=threads, instances=instances)
    assert kept(session, "NUM_STREAMS") == instances
    assert kept(session, "INFERENCE_NUM_THREADS") == threads * instances


def test_each_instance_has_a_request_of_its_own(make_linear: Make) -> None:
    session = load(make_linear(), instances=2)
    with session._pool.take() as one, session._pool.take() as other:
        assert one is not other


@pytest.mark.parametrize("pin", [True, False])
def test_pinning_is_read_back(make_linear: Make, pin: bool) -> None:
    session = engines.get("openvino").load(make_linear(), Target(engine="openvino", threads=1, pin=pin))
    assert isinstance(session, OpenVinoSession)
    assert kept(session, "ENABLE_CPU_PINNING") is pin


def test_a_batch_is_compiled_in_and_others_are_refused(make_linear: Make) -> None:
    session = load(make_linear(), batch=4)
    assert session.signature.inputs[0].shape == (4, 4)
    with pytest.raises(EngineRunError, match="has 2 at axis 0"):
        session.run({"x": np.ones((2, 4), np.float32)})


def test_a_batch_other_than_the_models_fixed_one_is_refused(make_linear: Make) -> None:
    with pytest.raises(EngineLoadError, match="batches of 3"):
        load(make_linear(batch=2), batch=3)


@pytest.mark.skipif(not can_flush(), reason="this system cannot flush subnormal numbers for a thread")
@pytest.mark.parametrize("instances", [1, 2])
def test_subnormal_numbers_are_flushed_on_every_thread_and_stay_elsewhere(tmp_path: Path, instances: int) -> None:
    path = save(
        tmp_path / "half.onnx", "(float[n] x) => (float[n] y) { h = Constant<value = float {0.5}>() y = Mul(x, h) }"
    )
    tiny = np.full(200_000, 1e-39, np.float32)
    flushed = load(path, threads=2, flush_denormals=True, instances=instances)
    plain = load(path, threads=2)
    assert kept(flushed, "CPU_DENORMALS_OPTIMIZATION") is True
    assert plain.run({"x": tiny})["y"].min() > 0
    answers = [flushed.run({"x": tiny})["y"]]
    thread = threading.Thread(target=lambda: answers.append(flushed.run({"x": tiny})["y"]))
    thread.start()
    thread.join()
    assert [float(answer.max()) for answer in answers] == [0, 0]
    assert (tiny * np.float32(0.5)).min() > 0, "the caller's own mode is as it was"


def test_the_precision_hint_is_pinned_to_f32(make_linear: Make) -> None:
    assert kept(load(make_linear()), "INFERENCE_PRECISION_HINT").to_string() == "f32"


def test_a_precision_that_the_processor_lacks_is_refused_and_others_are_read_back(make_linear: Make) -> None:
    device = engines.get("openvino").probe().device("CPU")
    assert device is not None
    for precision in ("bf16", "f16"):
        if precision in device.precisions:
            assert load(make_linear(), precision=precision).precision == precision
        else:
            with pytest.raises(EngineLoadError, match=f"although {precision} was asked for"):
                load(make_linear(), precision=precision)


@pytest.mark.parametrize("device", ["AUTO", "AUTO:CPU", "HETERO:CPU", "MULTI:CPU"])
def test_devices_over_devices_run_the_model_in_the_precision_asked_for(make_linear: Make, device: str) -> None:
    session = load(make_linear(), device=device)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(session.run({"x": x})["y"], load(make_linear()).run({"x": x})["y"], rtol=1e-6)
    assert session.precision == "f32"


@pytest.mark.parametrize("device", ["GPU", "NPU"])
def test_a_device_that_is_not_here_is_told_and_refused_with_what_to_do(make_linear: Make, device: str) -> None:
    probe = engines.get("openvino").probe()
    if probe.device(device) is not None:
        assert load(make_linear(), device=device).signature.inputs[0].name == "x"
        return
    [absent] = [item for item in probe.absent if item.name == device]
    with pytest.raises(EngineLoadError) as caught:
        load(make_linear(), device=device)
    assert caught.value.remedy == absent.remedy


def test_integers_beyond_32_bits_are_refused_before_they_are_cut_off(tmp_path: Path) -> None:
    session = load(save(tmp_path / "twice.onnx", "(int64[n] x) => (int64[n] y) { y = Add(x, x) }"))
    assert session.run({"x": np.array([2**29, -7])})["y"].tolist() == [2**30, -14]
    with pytest.raises(EngineRunError, match="beyond 32 bits"):
        session.run({"x": np.array([2**40])})


def test_strings_are_refused_because_they_would_corrupt_memory(tmp_path: Path) -> None:
    path = save(tmp_path / "text.onnx", "(string[n] x) => (string[n] y) { y = Identity(x) }")
    with pytest.raises(EngineLoadError, match="holds strings") as caught:
        load(path)
    assert "onnxruntime" in caught.value.remedy
