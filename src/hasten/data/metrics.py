"""Metrics: how an answer is held against its label. Each says how one sample scores and how scores join to one
number.

A metric turns every sample into a row of numbers, and `aggregate` turns rows into the metric. For a share of
right answers the row is 0 or 1 and the aggregate is the mean; for a pooled error rate the row is (errors,
length). Working on rows keeps comparisons paired by sample, whatever the metric.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hasten.errors import UsageError
from hasten.spec.measurement import MetricInfo

__all__ = ["BUILTIN", "Answer", "Metric", "Rows", "metric_named"]

Rows = np.ndarray[Any, np.dtype[np.float64]]
Answer = Any
Kind = Literal["binary", "mean", "statistic"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A metric. `row(answer, label)` scores one sample; `aggregate(rows)` with rows [n, k] gives the metric.

    `kind` picks the interval: "binary" rows are one 0 or 1, "mean" rows are one number, "statistic" is anything
    else and is resampled. Write your own and name it with `Dataset(metric=...)`.
    """

    name: str
    row: Callable[[Answer, Any], Sequence[float]]
    aggregate: Callable[[Rows], float]
    kind: Kind
    higher_is_better: bool = True
    unit: str = "share"

    @property
    def info(self) -> MetricInfo:
        """The metric as evidence records it."""
        return MetricInfo(name=self.name, higher_is_better=self.higher_is_better, unit=self.unit)


def mean_of_rows(rows: Rows) -> float:
    """Return the mean of a single-column row table."""
    return float(rows[:, 0].mean())


def ratio_of_sums(rows: Rows) -> float:
    """Return sum of the first column over sum of the second: an error rate pooled over all samples."""
    return float(rows[:, 0].sum() / rows[:, 1].sum()) if rows[:, 1].sum() else 0.0


def _same(answer: Answer, label: Any) -> Sequence[float]:
    return (float(bool(np.all(answer == label))),)


def _edits(answer: Answer, label: Any) -> Sequence[float]:
    """Edit distance (Levenshtein 1966) and length of the label."""
    from rapidfuzz.distance import Levenshtein

    return (float(Levenshtein.distance(str(answer), str(label))), float(len(str(label))))


def _pair(answer: Answer, label: Any) -> Sequence[float]:
    return (float(np.ravel(answer)[-1]), float(label))


def _macro_f1(rows: Rows) -> float:
    """Return F1 averaged over the classes that occur among labels or answers."""
    answers, labels = rows[:, 0], rows[:, 1]
    scores: list[float] = []
    for klass in np.union1d(answers, labels):
        hits = float(np.sum((answers == klass) & (labels == klass)))
        total = float(np.sum(answers == klass) + np.sum(labels == klass))
        scores.append(2 * hits / total)
    return float(np.mean(scores))


def _auc(rows: Rows) -> float:
    """Return the area under the ROC curve by ranks (Hanley and McNeil 1982); 0.5 where one class is absent."""
    from scipy.stats import rankdata

    scores, positive = rows[:, 0], rows[:, 1] > 0.5
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return 0.5
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _spearman(rows: Rows) -> float:
    """Return Spearman's rank correlation; 0 where one side is constant."""
    from scipy.stats import rankdata

    a, b = rankdata(rows[:, 0]), rankdata(rows[:, 1])
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


BUILTIN: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(name="top1", row=_same, aggregate=mean_of_rows, kind="binary"),
        Metric(name="exact_match", row=_same, aggregate=mean_of_rows, kind="binary"),
        Metric(name="agreement", row=_same, aggregate=mean_of_rows, kind="binary"),
        Metric(
            name="char_error_rate",
            row=_edits,
            aggregate=ratio_of_sums,
            kind="statistic",
            higher_is_better=False,
        ),
        Metric(name="f1", row=_pair, aggregate=_macro_f1, kind="statistic"),
        Metric(name="auc", row=_pair, aggregate=_auc, kind="statistic"),
        Metric(name="spearman", row=_pair, aggregate=_spearman, kind="statistic", unit="correlation"),
    )
}


def metric_named(name: str) -> Metric:
    """Return a built-in metric. Raises `UsageError` with the names there are."""
    if name not in BUILTIN:
        raise UsageError(
            f"There is no metric called {name!r}.",
            remedy=f"Choose one of {', '.join(BUILTIN)}, or give your own as module:function.",
        )
    return BUILTIN[name]
