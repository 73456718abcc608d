"""The samples that changed most come first, told in words a person reads, and their pictures stay within bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hasten.data import Dataset
from hasten.data.metrics import Metric, mean_of_rows
from hasten.optimize.stories import shown_samples, stories
from hasten.spec.evidence import Story


def data_of(labels: Any, **options: Any) -> Dataset:
    return Dataset(inputs={"x": np.zeros((len(labels), 2), np.float32)}, labels=labels, **options)


def told(dataset: Dataset, before: list[Any], after: list[Any]) -> list[Story]:
    return stories("v", dataset, dict(enumerate(before)), dict(enumerate(after)))


def test_an_answer_that_became_wrong_is_told_before_one_that_became_right_or_stayed_wrong() -> None:
    found = told(data_of([0, 0, 0, 0]), before=[1, 0, 1, 0], after=[0, 0, 2, 1])
    assert [story.sample for story in found] == [3, 2, 0]


def test_the_line_with_the_most_new_errors_comes_first() -> None:
    data = data_of(["abcd", "abcd", "abcd"], metric="char_error_rate")
    found = told(data, before=["abcd"] * 3, after=["abcd", "abc", "x"])
    assert [(story.sample, story.answer) for story in found] == [(2, "x"), (1, "abc")]


def test_classes_are_told_by_name_and_unknown_ones_by_number() -> None:
    [story] = told(data_of([0, 1], class_names=("cat", "dog")), before=[np.int64(0), 1], after=[np.int64(7), 1])
    assert (story.label, story.reference, story.answer) == ("cat", "cat", "7")


def test_scores_that_moved_by_rounding_are_no_story_and_a_broken_one_is() -> None:
    before, after = [np.array([0.9])] * 3, [np.array([0.9001]), np.array([0.9]), np.array([0.1])]
    [story] = told(data_of([1.0, 0.0, 1.0], metric="auc", class_names={1.0: "face"}), before, after)
    assert (story.sample, story.label, story.reference, story.answer) == (2, "face", "0.9", "0.1")


def test_a_small_score_that_moved_by_little_is_no_story_though_it_halved() -> None:
    before, after = [np.array([0.02]), np.array([0.9]), np.array([0.8])], [np.array([0.01])] + [np.array([0.9])] * 2
    assert [story.sample for story in told(data_of([0.0, 1.0, 1.0], metric="auc"), before, after)] == [2]


def test_an_answer_that_is_no_number_any_more_is_a_story() -> None:
    data = Dataset(inputs={"x": np.zeros((2, 2), np.float32)})
    [story] = told(data, before=[np.ones(2), np.ones(2)], after=[np.ones(2), np.array([np.nan, 1.0])])
    assert story.answer == "2 numbers: nan, 1"


def test_embeddings_are_told_by_their_first_numbers() -> None:
    data = Dataset(inputs={"x": np.zeros((1, 2), np.float32)})
    [story] = told(data, before=[np.arange(8.0)], after=[np.ones(8)])
    assert story.answer == "8 numbers: 1, 1, 1, 1, …"


def test_without_labels_every_other_answer_is_a_loss_of_agreement() -> None:
    assert [s.sample for s in told(Dataset(inputs={"x": np.zeros((3, 2), np.float32)}), [1, 2, 3], [1, 0, 3])] == [1]


def test_a_metric_that_one_sample_has_no_value_in_does_not_stand_in_the_way() -> None:
    def broken(rows: Any) -> float:
        raise ZeroDivisionError

    metric = Metric(name="own", row=lambda a, label: (float(a),), aggregate=broken, kind="statistic")
    assert len(told(data_of([0, 0], metric=metric), before=[1, 1], after=[2, 1])) == 1


def test_at_most_six_are_told() -> None:
    assert len(told(data_of([0] * 20), before=[0] * 20, after=[1] * 20)) == 6


def pictured(count: int) -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 150, 150, 3), dtype=np.uint8)
    return Dataset(inputs={"x": pixels}, labels=[0] * count, metric=Metric(
        name="any", row=lambda a, label: (0.0,), aggregate=mean_of_rows, kind="mean"
    ))  # fmt: skip


def story(variant: str, sample: int) -> Story:
    return Story(variant=variant, sample=sample, label="", reference="a", answer="b")


def test_a_sample_of_several_stories_is_kept_once_and_those_of_the_picks_come_first() -> None:
    shown = shown_samples(pictured(4), [story("a", 0), story("a", 1), story("b", 2), story("b", 1)], first=["b"])
    assert [item.sample for item in shown] == [2, 1, 0]
    assert all(item.picture.startswith(b"\x89PNG") for item in shown)


def test_pictures_end_where_the_room_in_a_record_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from hasten.optimize import stories as module

    data = pictured(8)
    one = len(shown_samples(data, [story("a", 0)], first=[])[0].picture)
    monkeypatch.setattr(module, "_MOST_BYTES", int(2.5 * one))
    assert len(shown_samples(data, [story("a", sample) for sample in range(8)], first=[])) == 2
