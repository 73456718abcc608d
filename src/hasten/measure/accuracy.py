"""Accuracy, and its change against the reference: paired by sample, because both sides answer the same samples.

A difference of two shares measured on different samples would need many times the data. The metric comes with the
data; without labels it is agreement with the reference model, and is called that.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hasten.data.dataset import Dataset, Subset
from hasten.data.feed import feed, sample_for, unbatch
from hasten.data.metrics import Metric
from hasten.measure.base import AnswerBook, Arm, Pair
from hasten.spec.measurement import Figure
from hasten.spec.progress import Progress
from hasten.stats.bootstrap import Z95, Z99
from hasten.stats.change import binary_change, mean_change, share, statistic, statistic_change

__all__ = ["AccuracyMeter", "answers_of"]


class AccuracyMeter:
    """Gives `accuracy` and `accuracy_change` of the first metric, and `<metric>` and `<metric>_change` of the
    others. Where the plan asks for it, `accuracy_change_spare` is the change of the first with its interval of 99 %.
    """

    name = "accuracy"
    names = ("accuracy", "accuracy_change")

    def measure(self, pair: Pair) -> dict[str, Figure]:
        """Answer every sample with the candidate, and with the reference where the book lacks it."""
        dataset, indices = pair.data.dataset, pair.data.indices
        _fill_book(pair)
        # The reference against itself: its answers are known, and asking twice would only cost time.
        own = pair.book.answers
        answers = {i: own[i] for i in indices} if pair.itself else answers_of(pair.candidate, pair.data, pair)
        pair.book.given[pair.label] = answers
        figures: dict[str, Figure] = {}
        for position, metric in enumerate(dataset.metrics):
            names = self.names if position == 0 else (metric.name, f"{metric.name}_change")
            truth = _truth(dataset, metric, pair.book)
            before = np.array([metric.row(pair.book.answers[i], truth(i)) for i in indices], dtype=np.float64)
            after = np.array([metric.row(answers[i], truth(i)) for i in indices], dtype=np.float64)
            seed = pair.plan.seed
            figures |= {names[0]: _value(metric, after, seed), names[1]: _change(metric, before, after, seed, Z95)}
            if position == 0 and pair.plan.spares:
                figures["accuracy_change_spare"] = _change(metric, before, after, seed, Z99)
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


def _fill_book(pair: Pair) -> None:
    missing = [index for index in pair.data.indices if index not in pair.book.answers]
    if missing:
        pair.book.answers |= answers_of(pair.reference, pair.data.dataset.subset(missing), pair)


def _truth(dataset: Dataset, metric: Metric, book: AnswerBook) -> Any:
    """What an answer is compared with: the label, or the reference's answer for agreement."""
    return book.answers.__getitem__ if metric.name == "agreement" else dataset.label


def _value(metric: Metric, after: np.ndarray[Any, Any], seed: int) -> Figure:
    if metric.kind == "binary":
        return share(after[:, 0])
    return statistic(after, metric.aggregate, seed=seed)


def _change(metric: Metric, before: np.ndarray[Any, Any], after: np.ndarray[Any, Any], seed: int, z: float) -> Figure:
    if metric.kind == "binary":
        return binary_change(before[:, 0], after[:, 0], z=z)
    if metric.kind == "mean":
        return mean_change(before[:, 0], after[:, 0], seed=seed, z=z)
    return statistic_change(before, after, metric.aggregate, seed=seed, z=z)
