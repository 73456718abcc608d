"""Metrics agree with what their names mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.data import Dataset, Metric
from hasten.data.dataset import first_arg_max
from hasten.data.metrics import metric_named
from hasten.errors import DataError


def value(name: str, answers: list[object], labels: list[object]) -> float:
    metric = metric_named(name)
    return metric.aggregate(np.array([metric.row(a, b) for a, b in zip(answers, labels, strict=True)]))


def test_exact_match_counts_equal_strings() -> None:
    assert value("exact_match", ["ab", "c", "x"], ["ab", "c", "d"]) == pytest.approx(2 / 3)


def test_character_error_rate_pools_edits_over_characters() -> None:
    assert value("char_error_rate", ["abcd", "x"], ["abed", "xyz"]) == pytest.approx(3 / 7)


def test_auc_is_the_chance_that_a_positive_outranks_a_negative() -> None:
    assert value("auc", [0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == pytest.approx(0.75)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40))
def test_perfect_answers_are_perfect(labels: list[int]) -> None:
    assert value("top1", list(labels), list(labels)) == 1.0
    assert value("f1", list(labels), list(labels)) == pytest.approx(1.0)
    assert value("char_error_rate", [str(i) for i in labels], [str(i) for i in labels]) == 0.0


@given(st.lists(st.integers(-20, 20), min_size=3, max_size=30, unique=True))
def test_spearman_sees_order_only(values: list[int]) -> None:
    assert value("spearman", list(np.exp(values)), list(values)) == pytest.approx(1.0)


def test_an_answer_is_the_arg_max_unless_it_is_an_answer_already() -> None:
    assert first_arg_max({"y": np.array([0.1, 0.9, 0.3])}) == 1
    np.testing.assert_array_equal(first_arg_max({"y": np.array([4, 2])}), [4, 2])


def test_a_metric_that_needs_labels_says_so() -> None:
    with pytest.raises(DataError, match="needs labels"):
        Dataset(inputs={"x": np.zeros((3, 1))}, metric="top1")


def test_labels_that_are_no_classes_need_a_metric() -> None:
    with pytest.raises(DataError, match="metric='exact_match'"):
        Dataset(inputs={"x": np.zeros((2, 1))}, labels=["a", "b"])


def test_a_metric_of_ones_own_is_taken() -> None:
    metric = Metric(name="mine", row=lambda a, b: (abs(a - b),), aggregate=lambda r: float(r.mean()), kind="mean")
    data = Dataset(inputs={"x": np.zeros((2, 1))}, labels=[1.0, 2.0], metric=metric)
    assert data.metric.info.name == "mine"


def test_no_samples_and_unequal_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="no samples"):
        Dataset(inputs={"x": np.zeros((0, 1))})
    with pytest.raises(DataError, match="3 samples but 2 labels"):
        Dataset(inputs={"x": np.zeros((3, 1))}, labels=[1, 2])
