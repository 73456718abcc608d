"""A model takes pixels and answers as it did to the values that preprocessing made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.transform.text_models import apply, normal, operators, sample, write

from hasten.data.dataset import Samples
from hasten.model.open import open_model
from hasten.spec.preprocess import Preprocess
from hasten.transform.base import TransformFailed
from hasten.transform.fold_preprocess import preprocess_of

OPTIONS = {"mean": "120.5,110,100", "std": "60,61.5,62"}
MEANT = Preprocess(input="x", mean=(120.5, 110.0, 100.0), std=(60.0, 61.5, 62.0))
HEAD = "(float[N, 3, 8, 8] x) => (float[N, 4, H, W] y)"
PADDED, PLAIN = "Conv <pads = [1, 1, 1, 1]> (x, K)", "Conv (x, K)"


def values(channels_first: bool = True) -> Samples:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    meant = Preprocess(input="x", mean=MEANT.mean, std=MEANT.std, channels_first=channels_first)
    return sample(x=np.stack([meant.apply(image) for image in pixels]))


def model(folder: Path, conv: str = PADDED) -> Path:
    return write(folder / "model.onnx", f"{HEAD} {{ c = {conv} y = Relu(c) }}", {"K": normal(4, 3, 3, 3)})


def subject(folder: Path) -> tuple[Path, Samples]:
    return model(folder), values()


def refused(folder: Path) -> tuple[Path, Samples]:
    text = "(float[N, 8] x) => (float[N, 8] y) { y = Relu(x) }"
    return write(folder / "model.onnx", text), sample(x=(8,))


def test_the_input_is_uint8_with_channels_last(tmp_path: Path) -> None:
    folded, applied = apply("fold_preprocess", *subject(tmp_path), OPTIONS)
    [spec] = open_model(folded).signature.inputs
    assert (spec.name, spec.dtype, spec.shape) == ("x", "UINT8", ("N", 8, 8, 3))
    assert applied.error is not None and applied.error < 1e-5


def test_the_mean_stays_outside_a_convolution_that_pads(tmp_path: Path) -> None:
    folded, _ = apply("fold_preprocess", *subject(tmp_path), OPTIONS)
    assert operators(folded) == {"Transpose": 1, "Cast": 1, "Sub": 1, "Conv": 1, "Relu": 1}


def test_all_of_it_goes_into_a_convolution_that_does_not_pad(tmp_path: Path) -> None:
    folded, _ = apply("fold_preprocess", model(tmp_path, PLAIN), values(), OPTIONS)
    assert operators(folded) == {"Transpose": 1, "Cast": 1, "Conv": 1, "Relu": 1}


def test_convolutions_further_on_are_left_alone(tmp_path: Path) -> None:
    body = f"c = {PADDED} m = Mul(c, s) y = Conv (m, L)"
    weights = {"K": normal(4, 3, 3, 3), "L": normal(4, 4, 3, 3), "s": normal(4, 1, 1)}
    source = write(tmp_path / "model.onnx", f"{HEAD} {{ {body} }}", weights)
    folded, _ = apply("fold_preprocess", source, values(), OPTIONS)
    assert operators(folded)["Mul"] == 1
    kept = {tensor.name: tensor for tensor in onnx.load(str(folded)).graph.initializer}
    np.testing.assert_array_equal(numpy_helper.to_array(kept["L"]), weights["L"])


def test_an_input_that_is_read_twice_is_normalized_by_nodes(tmp_path: Path) -> None:
    body = f"c = {PADDED} d = ReduceMean <axes = [1]> (x) y = Mul(c, d)"
    source = write(tmp_path / "model.onnx", f"{HEAD} {{ {body} }}", {"K": normal(4, 3, 3, 3)})
    assert operators(apply("fold_preprocess", source, values(), OPTIONS)[0])["Div"] == 1


def test_a_model_with_channels_last_needs_no_transpose(tmp_path: Path) -> None:
    text = "(float[N, 8, 8, 3] x) => (float[N, 8, 8, 3] y) { y = Tanh(x) }"
    source = write(tmp_path / "model.onnx", text)
    options = {**OPTIONS, "channels_first": False}
    folded, _ = apply("fold_preprocess", source, values(channels_first=False), options)
    assert operators(folded) == {"Cast": 1, "Sub": 1, "Div": 1, "Tanh": 1}
    assert open_model(folded).signature.inputs[0].shape == ("N", 8, 8, 3)


def test_options_mean_what_preprocess_means() -> None:
    assert preprocess_of({**OPTIONS, "input": "x", "channels_first": True}) == MEANT
    assert preprocess_of({"input": "", "mean": "0", "std": "255", "channels_first": False}, "image") == Preprocess(
        input="image", mean=(0.0,), std=(255.0,), channels_first=False
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mean": "1,2"}, "has 3 channels, the options 2"),
        ({"mean": "1,2,3", "std": "1,2"}, "cannot use mean='1,2,3' with std='1,2'"),
        ({"std": "0"}, "cannot use"),
        ({"mean": "light"}, "cannot read mean='light'"),
        ({"input": "z"}, "no input 'z'"),
    ],
)
def test_options_that_do_not_fit_are_refused_with_a_reason(
    tmp_path: Path, options: dict[str, str], reason: str
) -> None:
    with pytest.raises(TransformFailed, match=reason):
        apply("fold_preprocess", *subject(tmp_path), options)


def test_a_model_of_two_inputs_must_be_told_which(tmp_path: Path) -> None:
    text = "(float[N, 3, 8, 8] x, float[N, 3, 8, 8] z) => (float[N, 3, 8, 8] y) { y = Add(x, z) }"
    source = write(tmp_path / "model.onnx", text)
    samples = sample(x=(3, 8, 8), z=(3, 8, 8))
    with pytest.raises(TransformFailed, match="has 2 inputs: name one"):
        apply("fold_preprocess", source, samples)
