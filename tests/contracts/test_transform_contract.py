"""Every transform keeps its promise on a model that it applies to, and says why where it does not apply."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import final

import numpy as np
import onnx
import pytest

from hasten.data import Dataset
from hasten.data.dataset import Subset
from hasten.engine.onnxruntime import OnnxRuntime
from hasten.model.onnx_file import OnnxModel, open_model
from hasten.spec.target import Target
from hasten.transform.base import Options, Transform, TransformFailed, transforms

Make = Callable[..., Path]
X = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)


@pytest.fixture(params=transforms.names())
def transform(request: pytest.FixtureRequest) -> Transform:
    return transforms.get(request.param)


@pytest.fixture
def calibration() -> Subset:
    return Dataset(inputs={"x": X}).subset(range(40))


def answers(path: Path) -> np.ndarray:
    return OnnxRuntime().load(path, Target(engine="onnxruntime")).run({"x": X})["y"]


def test_the_result_is_valid_keeps_the_signature_and_stays_close(
    transform: Transform, make_linear: Make, calibration: Subset, tmp_path: Path
) -> None:
    source, out = make_linear(), tmp_path / "out.onnx"
    transform.run(source, out, calibration, {})
    onnx.checker.check_model(str(out))
    assert [str(s).split("[")[0] for s in open_model(out).signature.inputs] == ["x: FP32"]
    tolerance = 1e-5 if transform.promise == "exact" else 0.1
    np.testing.assert_allclose(answers(out), answers(source), atol=tolerance * np.abs(answers(source)).max())


def test_the_same_recipe_gives_the_same_bytes(
    transform: Transform, make_linear: Make, calibration: Subset, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        transform.run(make_linear(), tmp_path / name, calibration, {})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_quantizing_twice_is_refused_with_the_reason(make_linear: Make, calibration: Subset, tmp_path: Path) -> None:
    quantize = transforms.get("quantize_static")
    quantize.run(make_linear(), tmp_path / "once.onnx", calibration, {})
    with pytest.raises(TransformFailed, match="quantized already"):
        quantize.run(tmp_path / "once.onnx", tmp_path / "twice.onnx", calibration, {})
    assert not (tmp_path / "twice.onnx").exists()


@final
class _Liar(Transform):
    name = "liar"
    promise = "exact"

    def requires(self, model: OnnxModel) -> str | None:
        return None

    def apply(self, model: OnnxModel, out: Path, calibration: Subset, options: Options) -> None:
        changed = onnx.ModelProto()
        changed.CopyFrom(model.proto)
        if options.get("rename"):
            changed.graph.output[0].name = "z"
            changed.graph.node[-1].output[0] = "z"
        else:
            weights = onnx.numpy_helper.to_array(changed.graph.initializer[0]) * 1.5
            changed.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "W"))
        onnx.save(changed, str(out))


@pytest.mark.parametrize(("options", "words"), [({}, "changed them"), ({"rename": True}, "inputs or outputs")])
def test_a_broken_promise_is_found_and_leaves_no_file(
    make_linear: Make, calibration: Subset, tmp_path: Path, options: dict[str, bool], words: str
) -> None:
    with pytest.raises(TransformFailed, match=words):
        _Liar().run(make_linear(), tmp_path / "out.onnx", calibration, options)
    assert not (tmp_path / "out.onnx").exists()
