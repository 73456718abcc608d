"""Each form gives the same answers with cheaper operators, and leaves alone what only looks like its pattern."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import linear_model
from tests.transform.text_models import apply, normal, operators, sample, write

from hasten.data.dataset import Samples
from hasten.transform.base import TransformFailed, transforms

PICTURES = "(float[N, 2, 16, 16] x) => (float[A, B, C, D] y)"
ROWS = "(float[N, 4, 8] x) => (float[A, B, C] y)"
HEADS = "(float[N, 2, 5, 8] x, float[N, 2, 5, 8] z) => (float[A, B, C, D] y)"


def model(folder: Path, text: str, opset: int = 17, **weights: Any) -> Path:
    return write(folder / "model.onnx", text, weights, opset=opset)


def subject(folder: Path) -> tuple[Path, Samples]:
    text = "a = MaxPool <kernel_shape = [5, 5], pads = [2, 2, 2, 2]> (x) b = Div(a, s) c = Pow(b, two) y = Div(c, s)"
    return model(folder, f"{PICTURES} {{ {text} }}", s=np.float32(3), two=np.float32(2)), sample(x=(2, 16, 16))


def refused(folder: Path) -> tuple[Path, Samples]:
    return linear_model(folder / "model.onnx"), sample(x=(4,))


@pytest.mark.parametrize(
    ("exponent", "wanted"),
    [
        (2, {"Mul": 1}),
        (3, {"Mul": 2}),
        (0.5, {"Sqrt": 1}),
        (-1, {"Reciprocal": 1}),
        (-0.5, {"Sqrt": 1, "Reciprocal": 1}),
    ],
)
def test_a_fixed_power(tmp_path: Path, exponent: float, wanted: dict[str, int]) -> None:
    source = model(tmp_path, f"{ROWS} {{ a = Abs(x) y = Pow(a, e) }}", e=np.float32(exponent))
    assert operators(apply("replace_operators", source, sample(x=(4, 8)))[0]) == {"Abs": 1, **wanted}


def test_a_division_by_constants(tmp_path: Path) -> None:
    source = model(tmp_path, f"{ROWS} {{ y = Div(x, d) }}", d=normal(8) + 3)
    assert operators(apply("replace_operators", source, sample(x=(4, 8)))[0]) == {"Mul": 1}


@pytest.mark.parametrize("divisor", [np.float32(0), np.float32(1e-39), np.float32(3e38)])
def test_a_division_whose_reciprocal_is_no_normal_number_stays(tmp_path: Path, divisor: np.float32) -> None:
    source = model(tmp_path, f"{ROWS} {{ y = Div(x, d) }}", d=divisor)
    with pytest.raises(TransformFailed, match="no node of the model has a cheaper form"):
        apply("replace_operators", source, sample(x=(4, 8)))


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("more", ["", ", strides = [2, 3]", ", pads = [2, 1, 0, 2]", ", dilations = [2, 1]"])
def test_a_large_pool_in_two_passes(tmp_path: Path, kind: str, more: str) -> None:
    if kind == "AveragePool":
        # Dilated means exist from 19 on.
        more = more.replace("dilations", "strides") + ", count_include_pad = 1"
    source = model(tmp_path, f"{PICTURES} {{ y = {kind} <kernel_shape = [5, 4]{more}> (x) }}")
    assert operators(apply("replace_operators", source, sample(x=(2, 16, 16)))[0]) == {kind: 2}


@pytest.mark.parametrize(
    "pool",
    [
        "y = MaxPool <kernel_shape = [3, 3]> (x)",
        "y = AveragePool <kernel_shape = [5, 5], pads = [2, 2, 2, 2]> (x)",
        "y, i = MaxPool <kernel_shape = [5, 5]> (x)",
        'y = MaxPool <kernel_shape = [5, 5], auto_pad = "SAME_UPPER"> (x)',
    ],
)
def test_a_pool_that_two_passes_would_change_or_not_help_stays(tmp_path: Path, pool: str) -> None:
    with pytest.raises(TransformFailed, match="no node of the model has a cheaper form"):
        apply("replace_operators", model(tmp_path, f"{PICTURES} {{ {pool} }}"), sample(x=(2, 16, 16)))


def test_numbers_outside_a_one_hot_product_look_up_zeros(tmp_path: Path) -> None:
    source = model(
        tmp_path,
        "(int64[N, 6] x) => (float[N, 6, 3] y) "
        "{ a = Unsqueeze(x, last) e = Expand(a, wide) b = Equal(e, steps) c = Cast <to = 1> (b) y = MatMul(c, W) }",
        last=np.array([2]),
        wide=np.array([1, 1, 5]),
        steps=np.arange(5).reshape(1, 1, 5),
        W=normal(5, 3),
    )
    numbers = np.array([[0, 1, 4, 5, -1, 1000]] * 4)
    replaced, applied = apply("replace_operators", source, sample(x=numbers))
    assert operators(replaced)["Gather"] == 1
    assert operators(replaced)["MatMul"] == 0
    assert applied.error == 0.0


def test_an_expand_that_broadcasting_makes_superfluous(tmp_path: Path) -> None:
    source = model(
        tmp_path, f"{ROWS} {{ m = ReduceMean <axes = [2]> (x) s = Shape(x) e = Expand(m, s) y = Sub(x, e) }}"
    )
    assert operators(apply("replace_operators", source, sample(x=(4, 8)))[0]) == {"ReduceMean": 1, "Sub": 1}


def test_an_expand_that_gives_the_result_its_shape_stays(tmp_path: Path) -> None:
    source = model(
        tmp_path, f"{ROWS} {{ m = ReduceMean <axes = [2]> (x) s = Shape(x) e = Expand(m, s) y = Sub(e, m) }}"
    )
    with pytest.raises(TransformFailed, match="no node of the model has a cheaper form"):
        apply("replace_operators", source, sample(x=(4, 8)))


@pytest.mark.parametrize(
    ("equation", "transposes"), [("bhid,bhjd->bhij", 1), ("nhtc,nhtd->nhcd", 1), ("abij,abkj->abki", 2)]
)
def test_an_einsum_that_is_a_matrix_product(tmp_path: Path, equation: str, transposes: int) -> None:
    source = model(tmp_path, f'{HEADS} {{ y = Einsum <equation = "{equation}"> (x, z) }}')
    replaced = operators(apply("replace_operators", source, sample(x=(2, 5, 8), z=(2, 5, 8)))[0])
    assert replaced == {"MatMul": 1, "Transpose": transposes}


@pytest.mark.parametrize("equation", ["bhid,bhid->bhi", "bhid,bhjd->bij", "bhid,bhjd", "...id,...jd->...ij"])
def test_an_einsum_that_is_none_stays(tmp_path: Path, equation: str) -> None:
    head = "(float[N, 2, 5, 8] x, float[N, 2, 5, 8] z) => (float y)"
    source = model(
        tmp_path, f'{head} {{ e = Einsum <equation = "{equation}"> (x, z) y = ReduceSum <keepdims = 0> (e) }}'
    )
    with pytest.raises(TransformFailed, match="no node of the model has a cheaper form"):
        apply("replace_operators", source, sample(x=(2, 5, 8), z=(2, 5, 8)))


@pytest.mark.parametrize(
    ("form", "opset", "wanted"),
    [
        ("tanh_gelu", 20, {"Gelu": 1, "MatMul": 1}),
        ("tanh_gelu", 17, {"FastGelu": 1, "MatMul": 1}),
        ("sigmoid_gelu", 17, {"Mul": 2, "Sigmoid": 1, "MatMul": 1}),
    ],
)
def test_gelu_is_approximated_on_request(tmp_path: Path, form: str, opset: int, wanted: dict[str, int]) -> None:
    gelu = "d = Div(x, r) e = Erf(d) f = Add(e, one) g = Mul(x, f) h = Mul(g, p) y = MatMul(h, W)"
    numbers = {"r": np.float32(2**0.5), "one": np.float32(1), "p": np.float32(0.5)}
    source = model(tmp_path, f"{ROWS} {{ {gelu} }}", opset, W=normal(8, 8), **numbers)
    replaced, applied = apply("replace_operators", source, sample(x=(4, 8)), {"forms": form})
    assert operators(replaced) == wanted
    assert applied.error is not None and 0 < applied.error < 0.03


def test_swish_is_approximated_on_request_and_held_to_a_looser_promise(tmp_path: Path) -> None:
    source = model(
        tmp_path, f"{ROWS} {{ s = Sigmoid(x) m = Mul(x, s) f = Mul(m, t) y = Add(f, x) }}", t=np.float32(0.1)
    )
    replaced, _ = apply("replace_operators", source, sample(x=(4, 8)), {"forms": "hard_swish"})
    assert operators(replaced)["HardSwish"] == 1
    technique = transforms.get("replace_operators")
    assert technique.promised(technique.defaults) == "exact"
    assert technique.promised({"forms": "power,hard_swish"}) == "close"


def test_a_form_that_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TransformFailed, match="no form 'magic'") as caught:
        apply("replace_operators", *subject(tmp_path), {"forms": "magic"})
    assert "max_pool" in caught.value.remedy
