"""How close a call each answer is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hasten.data import Dataset
from hasten.measure.base import AnswerBook, Pair, Plan
from hasten.measure.margins import Margins, margin_of, margins_of
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
    assert (found.flips_with(0.0), found.flips_with(0.1)) == ((0, 1), (0, 0))
    assert found.share_below(0.1) == pytest.approx(1 / 3)


def test_a_model_without_scores_has_no_margins() -> None:
    assert margins_of(pair(lambda inputs: {"y": inputs["x"].argmax(1)})) is None


def answers(margins: Any, right: Any, **options: Any) -> Margins:
    count = len(margins)
    data = Dataset(inputs={"x": np.zeros((count, 2), np.float32)}, labels=np.zeros(count, int), **options)
    whole = replace(pair(lambda inputs: {"y": inputs["x"]}), data=data.subset(range(count)))
    rows = np.array(right, float)[:, None]
    return Margins(np.array(margins, float), rows, rows.copy(), whole)


def test_margins_that_are_smaller_where_the_answer_is_wrong_are_telling() -> None:
    margins = np.linspace(0, 1, 100)
    assert answers(margins, margins > 0.1).are_telling
    assert not answers(margins, margins < 0.9).are_telling, "the surest are wrong"


def test_margins_between_numbers_that_are_no_scores_are_not_telling() -> None:
    rng = np.random.default_rng(0)
    assert not answers(rng.random(400), rng.random(400) > 0.1).are_telling


def test_where_all_answers_are_right_or_have_no_right_and_wrong_nothing_can_be_told() -> None:
    margins = np.linspace(0, 1, 100)
    assert not answers(margins, margins >= 0).are_telling
    assert not answers(margins, margins > 0.1, metric="auc").are_telling


def test_whether_any_answer_is_worth_something_else_is_known() -> None:
    found = answers([0.1, 0.2], [1, 0])
    assert not found.changed
    assert replace(found, after=np.array([[1.0], [1.0]])).changed
