"""How close a call each answer is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from hasten.data import Dataset
from hasten.measure.base import AnswerBook, Pair, Plan
from hasten.measure.margins import margin_of, margins_of
from hasten.spec.signature import Signature
from hasten.spec.tensor import TensorSpec
from hasten.testing import FakeArm


@pytest.mark.parametrize(
    ("scores", "margin"),
    [
        ([0.1, 0.7, 0.2], 0.5),
        ([0.5, 0.5], 0.0),
        ([0.5, np.nan, 0.1], 0.0),
        ([np.inf, np.inf], 0.0),
        ([[0.9, 0.1], [0.6, 0.4]], 0.2),
    ],
)
def test_the_margin_is_between_the_two_highest_scores_of_the_closest_position(scores: Any, margin: float) -> None:
    assert margin_of({"y": np.array(scores, np.float32)}) == pytest.approx(margin, abs=1e-6)


@pytest.mark.parametrize("output", [np.array([3, 1]), np.array([[0.5]], np.float32), np.float32(1.0)])
def test_outputs_without_scores_have_no_margin(output: Any) -> None:
    assert margin_of({"y": output}) is None


def arm(answer: Callable[[Any], Any]) -> FakeArm:
    spec = TensorSpec(name="x", dtype="FP32", shape=("n", 2))
    return FakeArm(Signature(inputs=(spec,), outputs=(spec,)), answer, ms=1.0)


def pair(candidate: Callable[[Any], Any]) -> Pair:
    x = np.array([[0.9, 0.1], [0.6, 0.5], [0.2, 0.8]], np.float32)
    reference = arm(lambda inputs: {"y": inputs["x"]})
    side = arm(candidate)
    data = Dataset(inputs={"x": x}, labels=np.array([0, 0, 1]))
    return Pair(
        reference=reference,
        candidate=side,
        fresh=lambda: nullcontext(side),
        data=data.subset(range(3)),
        book=AnswerBook(),
        plan=Plan(),
    )


def test_close_calls_that_are_settled_are_worth_what_the_reference_makes_of_them() -> None:
    found = margins_of(pair(lambda inputs: {"y": inputs["x"] + np.array([0.0, 0.15], np.float32)}))
    assert found is not None
    np.testing.assert_allclose(found.margins, [0.65, 0.05, 0.75], atol=1e-6)
    assert found.before[:, 0].tolist() == [1, 1, 1]
    assert found.after[:, 0].tolist() == [1, 0, 1]
    assert found.change_with(0.0).value == pytest.approx(-1 / 3)
    assert found.change_with(0.1).value == 0.0


def test_a_model_without_scores_has_no_margins() -> None:
    assert margins_of(pair(lambda inputs: {"y": inputs["x"].argmax(1)})) is None
