"""A dataset says what its classes are called."""

from __future__ import annotations

import numpy as np

from hasten.data import Dataset

X = {"x": np.zeros((4, 2), np.float32)}


def test_a_class_is_called_as_the_data_says_whether_a_label_or_an_answer_asks() -> None:
    data = Dataset(inputs=X, labels=[0, 1, 0, 1], class_names=("cat", "dog"))
    assert data.class_name(1) == data.class_name(np.int64(1)) == data.class_name(np.array([1])) == "dog"


def test_classes_may_be_named_by_label_and_not_all_of_them() -> None:
    data = Dataset(inputs=X, labels=[12, 93, 12, 12], class_names={12: "bat"})
    assert (data.class_name(12), data.class_name(93)) == ("bat", None)


def test_without_names_and_for_many_numbers_there_is_no_name() -> None:
    assert Dataset(inputs=X, labels=[0, 1, 0, 1]).class_name(1) is None
    assert Dataset(inputs=X, labels=[0, 1, 0, 1], class_names=("a", "b")).class_name(np.zeros(3)) is None
