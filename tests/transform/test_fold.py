"""Folding leaves standard operators, fewer of them, and the same answers, interface and metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.transform.text_models import apply, domains, normal, operators, sample, write

from hasten.data.dataset import Samples
from hasten.errors import HastenError
from hasten.model.open import open_model

PICTURES = "(float[N, 3, 8, 8] x) => (float[N, 4, 8, 8] y)"
PADDED = "Conv <pads = [1, 1, 1, 1]>"
KERNEL, SCALE, SHIFT = normal(4, 3, 3, 3), normal(4, 1, 1), normal(4, 1, 1, seed=1)


def pictures() -> Samples:
    return sample(x=(3, 8, 8))


def subject(folder: Path) -> tuple[Path, Samples]:
    body = f"two = Constant <value = float {{2}}> () k = Mul(K, two) c = {PADDED} (x, k) m = Mul(S, c) y = Add(T, m)"
    return write(folder / "model.onnx", f"{PICTURES} {{ {body} }}", {"K": KERNEL, "S": SCALE, "T": SHIFT}), pictures()


def test_constants_on_either_side_go_into_the_convolution(tmp_path: Path) -> None:
    model, applied = apply("fold", *subject(tmp_path))
    assert operators(model) == {"Conv": 1}
    assert all(node.op_type != "Constant" for node in onnx.load(str(model)).graph.node)
    assert any("went into convolutions" in note for note in applied.notes)


def test_batch_normalization_goes_into_the_convolution(tmp_path: Path) -> None:
    ones = {name: np.abs(normal(4, seed=place)) + 0.5 for place, name in enumerate("gbmv")}
    source = write(
        tmp_path / "model.onnx",
        f"{PICTURES} {{ c = {PADDED} (x, K) y = BatchNormalization(c, g, b, m, v) }}",
        {"K": KERNEL, **ones},
    )
    assert operators(apply("fold", source, pictures())[0]) == {"Conv": 1}


@pytest.mark.parametrize(("conv", "left"), [(PADDED, {"Add": 1, "Conv": 1}), ("Conv", {"Conv": 1})])
def test_a_shift_before_a_convolution_goes_into_it_only_without_padding(
    tmp_path: Path, conv: str, left: dict[str, int]
) -> None:
    source = write(
        tmp_path / "model.onnx",
        f"(float[N, 3, 8, 8] x) => (float[N, 4, H, W] y) {{ a = Add(x, T) m = Mul(a, S) y = {conv} (m, K) }}",
        {"K": KERNEL, "S": normal(3, 1, 1), "T": normal(1, 3, 1, 1)},
    )
    assert operators(apply("fold", source, pictures())[0]) == left


def test_each_group_of_a_convolution_gets_the_scale_of_its_own_inputs(tmp_path: Path) -> None:
    source = write(
        tmp_path / "model.onnx",
        "(float[N, 4, 8, 8] x) => (float[N, 6, H, W] y) { m = Mul(x, S) a = Sub(m, T) y = Conv <group = 2> (a, K) }",
        {"K": normal(6, 2, 3, 3), "S": normal(4, 1, 1), "T": normal(4, 1, 1, seed=1)},
    )
    assert operators(apply("fold", source, sample(x=(4, 8, 8)))[0]) == {"Conv": 1}


def test_a_constant_that_spreads_over_columns_stays(tmp_path: Path) -> None:
    source = write(
        tmp_path / "model.onnx", f"{PICTURES} {{ c = {PADDED} (x, K) y = Mul(c, S) }}", {"K": KERNEL, "S": normal(8)}
    )
    assert operators(apply("fold", source, pictures())[0]) == {"Conv": 1, "Mul": 1}


def test_the_division_of_a_hard_swish_is_left_for_fusing(tmp_path: Path) -> None:
    numbers = {"a": np.float32(3), "z": np.float32(0), "s": np.float32(6)}
    source = write(
        tmp_path / "model.onnx",
        f"{PICTURES} {{ u = Add(x, a) c = Clip(u, z, s) m = Mul(x, c) h = Div(m, s) y = {PADDED} (h, K) }}",
        {"K": KERNEL, **numbers},
    )
    assert operators(apply("fold", source, pictures())[0])["Div"] == 1


def test_no_operator_of_the_runtimes_own_is_written(tmp_path: Path) -> None:
    source = write(
        tmp_path / "model.onnx",
        "(float[N, 8] x) => (float[N, 8] y) { h = MatMul(x, W) d = Div(h, r) e = Erf(d) f = Add(e, o) g = Mul(h, f) "
        "y = Mul(g, p) }",
        {"W": normal(8, 8), "r": np.float32(2**0.5), "o": np.float32(1), "p": np.float32(0.5)},
    )
    model = apply("fold", source, sample(x=(8,)))[0]
    assert domains(model) == {""}
    assert [item.domain for item in onnx.load(str(model)).opset_import] == [""]


def test_a_small_model_does_not_grow_by_what_could_be_folded(tmp_path: Path) -> None:
    source = write(
        tmp_path / "model.onnx",
        "(float[N, 8] x) => (float[N, 8] y) { e = Expand(t, s) r = ReduceSum <keepdims = 0> (e, a) w = Expand(t, v) "
        "q = Add(w, x) p = MatMul(q, W) y = Add(p, r) }",
        {
            "t": normal(1, 1),
            "s": np.array([3_000_000, 1]),
            "v": np.array([1, 8]),
            "a": np.array([0]),
            "W": normal(8, 8),
        },
    )
    assert apply("fold", source, sample(x=(8,)))[0].stat().st_size < 2**21


def test_quantize_and_dequantize_pairs_stay(tmp_path: Path) -> None:
    source = write(
        tmp_path / "model.onnx",
        "(float[N, 8] x) => (float[N, 8] y) { a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z) "
        "w = DequantizeLinear(q, s, z) y = MatMul(b, w) }",
        {"s": np.float32(0.05), "z": np.int8(0), "q": (normal(8, 8) * 20).astype(np.int8)},
    )
    assert operators(apply("fold", source, sample(x=(8,)))[0]) == operators(source)


def test_names_open_dimensions_and_metadata_are_kept(tmp_path: Path) -> None:
    source, samples = subject(tmp_path)
    proto = onnx.load(str(source))
    proto.metadata_props.add(key="labels", value="cat,dog")
    onnx.save(proto, str(source))
    model = open_model(apply("fold", source, samples)[0])
    assert model.signature == open_model(source).signature
    assert model.metadata() == {"labels": "cat,dog"}


def test_what_the_runtime_refuses_is_a_reason(tmp_path: Path) -> None:
    source = write(
        tmp_path / "model.onnx",
        "(float[N, 8] x) => (float[N, 8] y) { y = com.microsoft.NoSuchThing(x) }",
        domain="com.microsoft",
    )
    with pytest.raises(HastenError, match=r"could not fold the model: .*NoSuchThing"):
        apply("fold", source, sample(x=(8,)))
