"""What counts as the same answer, for each promise."""

from __future__ import annotations

import numpy as np
import pytest

from hasten.transform.numerics import Answers, compare

BASE = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)


def answers(*arrays: np.ndarray) -> Answers:
    return [{"y": array} for array in arrays]


@pytest.mark.parametrize("promise", ["exact", "close", "approximate"])
def test_rounding_breaks_no_promise(promise: str) -> None:
    error, problem = compare(answers(BASE), answers(BASE * np.float32(1 + 1e-6)), promise)
    assert problem is None
    assert error == pytest.approx(1e-6, rel=0.2)


def test_one_percent_is_close_and_not_exact() -> None:
    off = answers(BASE * np.float32(1.01))
    assert compare(answers(BASE), off, "close")[1] is None
    assert "more than rounding" in str(compare(answers(BASE), off, "exact")[1])


def test_ten_percent_is_neither_but_may_be_approximate() -> None:
    off = answers(BASE * np.float32(1.1))
    assert "off by 10.0%" in str(compare(answers(BASE), off, "close")[1])
    assert compare(answers(BASE), off, "approximate") == (pytest.approx(0.1, rel=1e-3), None)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_answer_that_is_no_longer_finite_breaks_every_promise(bad: float) -> None:
    spoiled = BASE.copy()
    spoiled[3, 3] = bad
    for promise in ("exact", "close", "approximate"):
        assert "no longer finite" in str(compare(answers(BASE), answers(spoiled), promise)[1])


def test_what_was_not_finite_before_may_stay_so() -> None:
    masked = BASE.copy()
    masked[0] = -np.inf
    assert compare(answers(masked), answers(masked.copy()), "exact") == (0.0, None)


def test_another_shape_or_kind_of_number_is_named() -> None:
    assert "shape [4, 16]" in str(compare(answers(BASE), answers(BASE.reshape(4, 16)), "approximate")[1])
    assert "type int64" in str(compare(answers(BASE), answers(BASE.astype(np.int64)), "approximate")[1])


def test_integers_must_stay_where_exactness_is_promised() -> None:
    whole = np.arange(4)
    assert compare(answers(whole), answers(whole + 1), "exact")[1] == "the output 'y' changed."
    assert compare(answers(whole), answers(whole + 1), "close") == (None, None)


def test_the_worst_output_counts_over_all_samples() -> None:
    wanted = [{"y": BASE, "z": BASE}, {"y": BASE, "z": BASE}]
    got = [{"y": BASE, "z": BASE}, {"y": BASE, "z": BASE * np.float32(1.02)}]
    assert compare(wanted, got, "close")[0] == pytest.approx(0.02 / 2**0.5, rel=1e-3)
