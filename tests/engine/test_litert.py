"""LiteRT: fixed and open shapes, several callers, delegates that are not there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.conftest import linear_model
from tests.engine.tflite import fully_connected

from hasten.engine.base import engines
from hasten.errors import EngineLoadError, EngineRunError
from hasten.spec.target import Runtime, Target


def subject(folder: Path, *, batch: int = -1) -> Path:
    """The linear model of all engine tests, as a TFLite file."""
    proto = onnx.load(str(linear_model(folder / "linear.onnx")))
    weights = {item.name: numpy_helper.to_array(item) for item in proto.graph.initializer}
    return fully_connected(folder / "linear.tflite", weights["W"], weights["b"], batch=batch)


def target(**options: object) -> Target:
    return Target(engine="litert", **options)  # type: ignore[arg-type]


def test_a_fixed_batch_is_kept_and_another_is_refused_in_words(tmp_path: Path) -> None:
    session = engines.get("litert").load(subject(tmp_path, batch=1), target())
    assert session.signature.inputs[0].shape == (1, 4)
    with pytest.raises(EngineRunError, match="has 2 at axis 0"):
        session.run({"x": np.zeros((2, 4), np.float32)})


def test_an_open_batch_grows_and_shrinks(tmp_path: Path) -> None:
    session = engines.get("litert").load(subject(tmp_path), target())
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    whole = session.run({"x": x})["y"]
    for rows in (1, 5, 2):
        np.testing.assert_allclose(session.run({"x": x[:rows]})["y"], whole[:rows], rtol=1e-6)


def test_two_callers_never_get_each_others_answers(tmp_path: Path) -> None:
    session = engines.get("litert").load(subject(tmp_path), target(runtime=Runtime(instances=2)))
    inputs = [np.full((1 + n % 3, 4), n, np.float32) for n in range(60)]
    wanted = [session.run({"x": x})["y"] for x in inputs]
    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(lambda x: session.run({"x": x})["y"], inputs))
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_closed_session_says_so(tmp_path: Path) -> None:
    session = engines.get("litert").load(subject(tmp_path), target())
    session.close()
    with pytest.raises(EngineRunError, match="closed"):
        session.run({"x": np.zeros((1, 4), np.float32)})


@pytest.mark.parametrize("device", ["EDGETPU", "GPU"])
def test_a_delegate_that_is_not_here_says_what_to_do(device: str, tmp_path: Path) -> None:
    probe = engines.get("litert").probe()
    [absent] = [item for item in probe.absent if item.name == device]
    assert absent.support == "not run on hardware"
    assert absent.remedy
    with pytest.raises(EngineLoadError, match="cannot be used") as caught:
        engines.get("litert").load(subject(tmp_path), target(device=device))
    assert caught.value.remedy == absent.remedy


def test_a_device_that_it_does_not_know_is_refused_with_those_it_does(tmp_path: Path) -> None:
    with pytest.raises(EngineLoadError, match="no device 'TPU9'") as caught:
        engines.get("litert").load(subject(tmp_path), target(device="TPU9"))
    assert "EDGETPU" in caught.value.remedy


def test_a_knob_that_it_does_not_obey_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineLoadError, match="no runtime knob 'io_binding'"):
        engines.get("litert").load(subject(tmp_path), target(runtime=Runtime(io_binding=True)))
