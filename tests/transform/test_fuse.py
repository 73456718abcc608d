"""Patterns are fused however an exporter spelled them, and only where nobody else reads what falls away."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import linear_model
from tests.transform.text_models import apply, domains, normal, operators, sample, write

from hasten.data.dataset import Samples
from hasten.model.onnx_file import open_onnx
from hasten.transform.base import TransformFailed
from hasten.transform.dims import Dims

NUMBERS = {
    "half": 0.5, "one": 1.0, "two": 2.0, "three": 3.0, "six": 6.0, "zero": 0.0, "root": 2**0.5, "eps": 1e-5,
    "cube": 0.044715, "pi": (2 / np.pi) ** 0.5, "third": 1 / 3, "quarter": 8**-0.25, "scale": 8**-0.5, "minus": -0.5,
}  # fmt: skip
WEIGHTS = {
    **{name: np.float32(value) for name, value in NUMBERS.items()},
    "W": normal(16, 16), "gamma": normal(16), "beta": normal(16, seed=1), "Q": normal(16, 16, seed=2) / 4,
    "K": normal(16, 16, seed=3) / 4, "V": normal(16, 16, seed=4) / 4, "P": normal(16, 48) / 4,
    "heads": np.array([0, 0, 2, 8]), "whole": np.array([0, 0, 16]), "last": np.array([-1]), "axis": np.array([0]),
    "packed": np.array([0, 0, 3, 2, 8]), "flat": np.array([-1, 5, 8]), "square": np.array([-1, 2, 8, 5]),
    **{f"i{place}": np.array([place]) for place in range(4)}, "c0": np.array(0), "c1": np.array(1), "c2": np.array(2),
}  # fmt: skip

NORM = "m = ReduceMean <axes = [-1]> (x) c = Sub(x, m) "
NORMS = {
    "power": NORM + "s = Pow(c, two) v = ReduceMean <axes = [-1]> (s) e = Add(v, eps) r = Sqrt(e) n = Div(c, r) "
    "g = Mul(n, gamma) y = Add(g, beta)",
    "product": NORM + "s = Mul(c, c) v = ReduceMean <axes = [2]> (s) e = Add(eps, v) r = Sqrt(e) i = Reciprocal(r) "
    "n = Mul(i, c) g = Mul(gamma, n) y = Add(beta, g)",
    "twice": NORM + "d = Sub(x, m) s = Mul(d, d) v = ReduceMean <axes = [-1]> (s) e = Add(v, eps) "
    "p = Pow(e, minus) n = Mul(c, p) y = Mul(n, gamma)",
}
GELUS = {
    "x/2 * (1 + erf)": "a = Div(x, root) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)",
    "half first": "h = Mul(half, x) a = Div(x, root) b = Erf(a) c = Add(one, b) y = Mul(c, h)",
    "tanh": "a = Pow(x, three) b = Mul(a, cube) c = Add(x, b) d = Mul(pi, c) e = Tanh(d) f = Add(e, one) "
    "g = Mul(x, f) y = Mul(g, half)",
    "tanh by products": "a = Mul(x, x) b = Mul(x, a) c = Mul(cube, b) d = Add(c, x) e = Mul(d, pi) f = Tanh(e) "
    "g = Add(one, f) h = Mul(half, g) y = Mul(h, x)",
}
ACTIVATIONS = {
    "HardSwish": "a = Add(x, three) b = Clip(a, zero, six) c = Mul(x, b) y = Div(c, six)",
    "HardSigmoid": "a = Add(x, three) b = Relu(a) c = Min(b, six) y = Div(c, six)",
    "Sigmoid": "a = Neg(x) b = Exp(a) c = Add(b, one) y = Reciprocal(c)",
    "Softplus": "a = Exp(x) b = Add(a, one) y = Log(b)",
}
SPLIT = "{0}1 = MatMul(x, {1}) {0}3 = Reshape({0}1, heads) "
SPLITS = "".join(SPLIT.format(name, name.upper()) for name in "qkv")
QUERY_VALUE = "q = Transpose <perm = [0, 2, 1, 3]> (q3) v = Transpose <perm = [0, 2, 1, 3]> (v3) "
MERGE = "o = MatMul(w, v) p = Transpose <perm = [0, 2, 1, 3]> (o) y = Reshape(p, whole)"
ATTENTIONS = {
    "scaled scores": SPLITS + QUERY_VALUE + "k = Transpose <perm = [0, 2, 3, 1]> (k3) s = MatMul(q, k) "
    "t = Mul(s, scale) u = Add(t, mask) w = Softmax <axis = -1> (u) " + MERGE,
    "half on each": SPLITS + QUERY_VALUE + "k4 = Transpose <perm = [0, 2, 1, 3]> (k3) "
    "k = Transpose <perm = [0, 1, 3, 2]> (k4) a = Mul(q, quarter) b = Mul(quarter, k) s = MatMul(a, b) "
    "u = Add(mask, s) w = Softmax <axis = 3> (u) " + MERGE,
    "keys in three dimensions": SPLITS + QUERY_VALUE + "k4 = Transpose <perm = [0, 2, 1, 3]> (k3) "
    "kf = Reshape(k4, flat) kt = Transpose <perm = [0, 2, 1]> (kf) k = Reshape(kt, square) a = Mul(q, scale) "
    "s = MatMul(a, k) w = Softmax <axis = -1> (s) " + MERGE,
    "packed": "z = MatMul(x, P) z5 = Reshape(z, packed) zt = Transpose <perm = [2, 0, 3, 1, 4]> (z5) "
    "q4 = Slice(zt, i0, i1, i0) q = Squeeze(q4, axis) k4 = Gather(zt, c1) v4 = Slice(zt, i2, i3, i0) "
    "v = Squeeze(v4, axis) k = Transpose <perm = [0, 1, 3, 2]> (k4) a = Mul(q, scale) s = MatMul(a, k) "
    "w = Softmax <axis = -1> (s) " + MERGE,
}


def model(path: Path, body: str, *, opset: int = 17, more: str = "") -> Path:
    text = f"(float[N, 5, 16] x, float[N, 1, 1, 5] mask) => (float[N, 5, 16] y{more}) {{ {body} }}"
    used = {name: value for name, value in WEIGHTS.items() if re.search(rf"\b{name}\b", body)}
    return write(path / "model.onnx", text, used, opset=opset)


def data() -> Samples:
    return sample(x=(5, 16), mask=np.array([[[[0, 0, -1e4, 0, 0]]]] * 4, np.float32))


def within(body: str, prefix: str, x: str, y: str) -> str:
    """`body` as a part of a larger graph: its own tensors prefixed, its input and output named."""
    own = {name: f"{prefix}_{name}" for name in re.findall(r"(\w+) = [A-Z]", body)} | {"x": x, "y": y}
    return re.sub(r"\b[a-z]\w*\b", lambda match: own.get(match.group(), match.group()), body)


def subject(folder: Path) -> tuple[Path, Samples]:
    """A transformer block, written out."""
    attention = within(ATTENTIONS["scaled scores"], "att", "x", "context")
    norm = within(NORMS["power"], "norm", "total", "normed")
    gelu = within(GELUS["half first"], "gelu", "normed", "bent")
    return model(folder, f"{attention} total = Add(x, context) {norm} {gelu} y = MatMul(bent, W)"), data()


def refused(folder: Path) -> tuple[Path, Samples]:
    return linear_model(folder / "model.onnx"), sample(x=(4,))


def test_a_transformer_block_becomes_five_kinds_of_operators(tmp_path: Path) -> None:
    fused, applied = apply("fuse", *subject(tmp_path))
    assert operators(fused)["MultiHeadAttention"] == 1
    assert operators(fused)["SkipLayerNormalization"] == 1
    assert operators(fused)["Gelu"] == 1
    assert sum(applied.operators_after.values()) < sum(applied.operators_before.values()) / 2


@pytest.mark.parametrize("spelling", NORMS)
def test_layer_normalization_is_found(tmp_path: Path, spelling: str) -> None:
    fused, _ = apply("fuse", model(tmp_path, NORMS[spelling]), data())
    assert operators(fused) == {"LayerNormalization": 1}


def test_layer_normalization_needs_its_operator_set(tmp_path: Path) -> None:
    with pytest.raises(TransformFailed, match="older than 17"):
        apply("fuse", model(tmp_path, NORMS["power"], opset=13), data())


@pytest.mark.parametrize("spelling", GELUS)
def test_gelu_is_found(tmp_path: Path, spelling: str) -> None:
    fused, _ = apply("fuse", model(tmp_path, GELUS[spelling]), data())
    assert operators(fused) == {"FastGelu" if "tanh" in spelling else "Gelu": 1}
    assert domains(fused) == {"com.microsoft"}


@pytest.mark.parametrize("spelling", GELUS)
def test_the_standard_gelu_is_used_where_there_is_one(tmp_path: Path, spelling: str) -> None:
    fused, _ = apply("fuse", model(tmp_path, GELUS[spelling], opset=20), data())
    assert operators(fused) == {"Gelu": 1}
    assert domains(fused) == {""}


@pytest.mark.parametrize("operator", ACTIVATIONS)
def test_other_activations_are_found(tmp_path: Path, operator: str) -> None:
    fused, _ = apply("fuse", model(tmp_path, ACTIVATIONS[operator]), data(), {"contrib": False})
    assert operators(fused) == {operator: 1}


def test_a_function_that_is_only_nearly_gelu_is_left_alone(tmp_path: Path) -> None:
    body = GELUS["half first"].replace("root", "two")
    with pytest.raises(TransformFailed, match="no pattern"):
        apply("fuse", model(tmp_path, body), data())


def test_what_somebody_else_reads_is_not_fused_away(tmp_path: Path) -> None:
    body = GELUS["half first"]
    with pytest.raises(TransformFailed, match="no pattern"):
        apply("fuse", model(tmp_path, body, more=", float[N, 5, 16] b"), data())


@pytest.mark.parametrize("spelling", ATTENTIONS)
def test_attention_is_found(tmp_path: Path, spelling: str) -> None:
    fused, applied = apply("fuse", model(tmp_path, ATTENTIONS[spelling]), data())
    assert operators(fused)["MultiHeadAttention"] == 1
    assert operators(fused)["Softmax"] == operators(fused)["Transpose"] == 0
    assert applied.error is not None and applied.error < 1e-5


def test_the_standard_attention_is_used_where_there_is_one(tmp_path: Path) -> None:
    fused, _ = apply("fuse", model(tmp_path, ATTENTIONS["scaled scores"], opset=23), data())
    assert operators(fused)["Attention"] == 1
    assert domains(fused) == {""}


def test_without_contrib_only_standard_operators_are_written(tmp_path: Path) -> None:
    fused, _ = apply("fuse", *subject(tmp_path), {"contrib": False})
    assert operators(fused)["LayerNormalization"] == 1
    assert domains(fused) == {""}


def test_shapes_behind_an_operator_of_the_runtimes_own_are_still_known(tmp_path: Path) -> None:
    body = within(GELUS["half first"], "gelu", "x", "bent") + " y = MatMul(bent, W)"
    source = model(tmp_path, body)
    fused = apply("fuse", source, data())[0]
    before, after = (Dims(open_onnx(path)) for path in (source, fused))
    assert after.shape("y") == before.shape("y")
    assert after.shape("bent") == before.shape("bent")
    assert after.shape("bent") is not None


def test_a_site_that_is_skipped_stays_as_it_is(tmp_path: Path) -> None:
    first, second = (within(GELUS["half first"], *names) for names in (("a", "x", "mid"), ("b", "mid", "y")))
    fused, applied = apply("fuse", model(tmp_path, f"{first} {second}"), data(), skip=["Mul4"])
    assert [item.site for item in applied.skipped] == ["Mul4"]
    assert (operators(fused)["Gelu"], operators(fused)["Erf"]) == (1, 1)


def test_a_residual_sum_that_is_read_again_is_an_output_of_the_fused_operator(tmp_path: Path) -> None:
    body = "s = MatMul(x, W) t = Add(s, x) n = LayerNormalization(t, gamma, beta) h = MatMul(n, Q) y = Add(h, t)"
    fused, _ = apply("fuse", model(tmp_path, body), data())
    assert operators(fused) == {"MatMul": 2, "SkipLayerNormalization": 1, "Add": 1}


def test_projections_of_one_tensor_are_joined_on_request(tmp_path: Path) -> None:
    body = "a = MatMul(x, Q) b = Add(a, beta) c = MatMul(x, K) d = Add(c, gamma) y = Mul(b, d)"
    fused, _ = apply("fuse", model(tmp_path, body), data(), {"projections": True})
    assert operators(fused) == {"MatMul": 1, "Add": 1, "Split": 1, "Mul": 1}
