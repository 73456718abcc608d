"""Accuracy, and its change against the reference: paired by sample, because both sides answer the same samples.

A difference of two shares measured on different samples would need many times the data. The metric comes with the
data; without labels it is agreement with the reference model, and is called that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hasten.data.dataset import Dataset, Subset
from hasten.data.feed import feed, sample_for, unbatch
from hasten.data.metrics import Metric
from hasten.measure.base import AnswerBook, Arm, Pair
from hasten.spec.measurement import Figure
from hasten.spec.progress import Progress
from hasten.stats.bootstrap import Z95
from hasten.stats.change import binary_change, mean_change, share, statistic, statistic_change

__all__ = ["AccuracyMeter", "accuracy_figures", "answers_of", "change_of", "fill_book", "rows_of"]


class AccuracyMeter:
    """Gives `accuracy` and `accuracy_change` of the first metric, and `<metric>` and `<metric>_change` of the
    others. Where the plan asks for them (`also_z`), further figures are the change of the first with intervals
    that claims are held to.
    """

    name = "accuracy"
    names = ("accuracy", "accuracy_change")

    def measure(self, pair: Pair) -> dict[str, Figure]:
        """Answer every sample with the candidate, and with the reference where the book lacks it."""
        indices = pair.data.indices
        fill_book(pair)
        # The reference against itself: its answers are known, and asking twice would only cost time.
        own = pair.book.answers
        answers = {i: own[i] for i in indices} if pair.itself else answers_of(pair.candidate, pair.data, pair)
        pair.book.given[pair.label] = answers
        return accuracy_figures(pair, answers)


def accuracy_figures(pair: Pair, answers: Mapping[int, Any]) -> dict[str, Figure]:
    """The figures of `AccuracyMeter` from decoded answers that are there already, to all samples of the pair."""
    figures: dict[str, Figure] = {}
    for position, metric in enumerate(pair.data.dataset.metrics):
        names = AccuracyMeter.names if position == 0 else (metric.name, f"{metric.name}_change")
        before, after = rows_of(metric, pair, answers)
        seed = pair.plan.seed
        figures |= {names[0]: _value(metric, after, seed), names[1]: change_of(metric, before, after, seed)}
        if position == 0:
            figures |= {name: change_of(metric, before, after, seed, z) for name, z in pair.plan.also_z.items()}
    return figures


def answers_of(arm: Arm, data: Subset, pair: Pair) -> dict[int, Any]:
    """Return the decoded answer of `arm` to each sample, by the sample's index in the whole dataset."""
    answers: dict[int, Any] = {}
    for position, index in enumerate(data.indices):
        sample = sample_for(arm.signature, data, position)
        outputs = arm.run(feed(arm.signature, [sample]))
        answers[index] = data.dataset.decode(unbatch(arm.signature, sample, outputs))
        if position % 10 == 0:
            pair.listener(Progress(stage=f"{pair.label}: accuracy", done=position, total=len(data)))
    return answers


def fill_book(pair: Pair) -> None:
    """Let the reference answer what it has not answered yet."""
    missing = [index for index in pair.data.indices if index not in pair.book.answers]
    if missing:
        pair.book.answers |= answers_of(pair.reference, pair.data.dataset.subset(missing), pair)


def rows_of(
    metric: Metric, pair: Pair, answers: Mapping[int, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The metric's rows of the reference's answers and of `answers`, in the order of the pair's data."""
    truth = _truth(pair.data.dataset, metric, pair.book)
    before = [metric.row(pair.book.answers[i], truth(i)) for i in pair.data.indices]
    after = [metric.row(answers[i], truth(i)) for i in pair.data.indices]
    return np.array(before, dtype=np.float64), np.array(after, dtype=np.float64)


def _truth(dataset: Dataset, metric: Metric, book: AnswerBook) -> Any:
    """What an answer is compared with: the label, or the reference's answer for agreement."""
    return book.answers.__getitem__ if metric.name == "agreement" else dataset.label


def _value(metric: Metric, after: np.ndarray[Any, Any], seed: int) -> Figure:
    if metric.kind == "binary":
        return share(after[:, 0])
    return statistic(after, metric.aggregate, seed=seed)


def change_of(
    metric: Metric, before: np.ndarray[Any, Any], after: np.ndarray[Any, Any], seed: int, z: float = Z95
) -> Figure:
    """The paired change of a metric between two sets of its rows, [samples, columns]."""
    if metric.kind == "binary":
        return binary_change(before[:, 0], after[:, 0], z=z)
    if metric.kind == "mean":
        return mean_change(before[:, 0], after[:, 0], seed=seed, z=z)
    return statistic_change(before, after, metric.aggregate, seed=seed, z=z)
