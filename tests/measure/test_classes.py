"""Accuracy by class: who changed most stands first, and a class too small to say anything says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hasten.data import Dataset
from hasten.data.metrics import Metric, mean_of_rows
from hasten.measure.classes import FEWEST, class_changes
from hasten.spec.evidence import ClassChanges

SIZES = {0: 40, 1: 60, 2: 4}


def data_of(labels: Any, **options: Any) -> Dataset:
    return Dataset(inputs={"x": np.zeros((len(labels), 2), np.float32)}, labels=labels, **options)


@pytest.fixture
def labels() -> list[int]:
    return [label for label, size in SIZES.items() for _ in range(size)]


def changed(dataset: Dataset, wrong: set[int]) -> ClassChanges | None:
    """The changes where the reference is right everywhere, and the variant wrong on the samples `wrong`."""
    right = {index: dataset.label(index) for index in range(len(dataset))}
    return class_changes(
        "v", dataset, range(len(dataset)), right, {i: -1 if i in wrong else a for i, a in right.items()}
    )


def test_the_class_that_changed_most_stands_first_with_a_paired_interval(labels: list[int]) -> None:
    found = changed(data_of(labels, class_names=("cat", "dog", "emu")), wrong={40, 41, 42})
    assert found is not None
    assert [(item.name, item.samples) for item in found.changes] == [("dog", 60), ("cat", 40), ("emu", 4)]
    dog = found.changes[0].change
    assert dog.value == pytest.approx(-0.05)
    assert dog.low is not None
    assert dog.high is not None
    assert dog.low < -0.05 < dog.high
    assert found.changes[0].reference.value == 1.0
    assert found.changes[0].accuracy.value == pytest.approx(0.95)


def test_a_class_without_any_change_still_leaves_room_for_one(labels: list[int]) -> None:
    found = changed(data_of(labels), wrong=set())
    assert found is not None
    assert found.changes[0].change.value == 0.0
    assert found.changes[0].change.low == pytest.approx(-3.84 / (60 + 3.84), rel=0.01)


def test_a_class_too_small_to_say_anything_stands_last_and_says_so(labels: list[int]) -> None:
    found = changed(data_of(labels), wrong={100, 101, 102, 103})
    assert found is not None
    last = found.changes[-1]
    assert last.samples == SIZES[2] < FEWEST
    assert last.change.value is None
    assert last.change.reason == "4 samples: too few to say anything"
    assert last.accuracy.value == 0.0


def test_lines_of_text_and_identities_are_no_classes() -> None:
    lines = data_of([f"line {i}" for i in range(50)], metric="exact_match")
    assert changed(lines, wrong={1}) is None
    assert changed(data_of(list(range(50))), wrong={1}) is None


def test_data_without_labels_or_with_graded_ones_has_no_classes() -> None:
    assert changed(Dataset(inputs={"x": np.zeros((40, 2), np.float32)}), wrong={1}) is None
    graded = [0.5 * (i % 4) for i in range(40)]
    assert changed(data_of(graded, metric="spearman"), wrong={1}) is None


def test_a_second_metric_that_says_right_or_wrong_serves_where_the_first_does_not() -> None:
    decision = Metric(
        name="decision", row=lambda a, label: (float((a > 0.5) == label),), aggregate=mean_of_rows, kind="binary"
    )
    found = changed(data_of([float(i % 2) for i in range(40)], metric=["auc", decision]), wrong={1})
    assert found is not None
    assert found.metric.name == "decision"
    assert found.changes[0].change.value == pytest.approx(-1 / 20)


def test_a_thousand_classes_leave_a_record_that_can_still_be_read() -> None:
    found = changed(data_of([i % 1000 for i in range(12_000)]), wrong={7})
    assert found is not None
    assert found.total == 1000
    assert len(found.changes) == 200
    assert found.changes[0].name == "7"
