"""How close a call each answer is, beside what it is worth with the candidate and with the reference.

The margin of an answer is the difference between its two highest scores: over the last axis of the first output, the
least one where there are many positions. Answers that a small error changes have small margins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hasten.data.dataset import Arrays
from hasten.data.feed import feed, sample_for, unbatch
from hasten.measure.accuracy import accuracy_figures, change_of, fill_book, rows_of
from hasten.measure.base import Pair
from hasten.spec.measurement import Figure
from hasten.stats.ranks import lower

__all__ = ["Margins", "margin_of", "margins_of"]

# One-sided level at which margins tell right from wrong.
_TELLING = 0.05
_Rows = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Margins:
    """By sample: the margin of the candidate's answer, and the rows of the metric before (reference) and after. The
    decoded `answers` are by the sample's index in the whole dataset.
    """

    margins: _Rows
    before: _Rows
    after: _Rows
    pair: Pair
    answers: Mapping[int, Any] = field(default_factory=dict[int, Any])

    def below(self, share: float) -> float:
        """The margin below which this share of the samples lies."""
        return float(np.quantile(self.margins, share))

    @property
    def changed(self) -> bool:
        """Whether any sample is worth something else with the candidate than with the reference."""
        return bool((self.before != self.after).any())

    @property
    def are_telling(self) -> bool:
        """Whether wrong answers are closer calls than right ones, at 5 %. Margins of scores are; those between numbers
        of an embedding tell nothing, and neither can be seen where answers are not simply right or wrong.
        """
        if self.pair.data.dataset.metric.kind != "binary":
            return False
        right = self.before[:, 0] > 0
        return lower(self.margins[~right], self.margins[right]) < _TELLING

    def figures(self) -> dict[str, Figure]:
        """Accuracy and its change on all these samples, with no answer computed again."""
        return accuracy_figures(self.pair, self.answers)

    def share_below(self, limit: float) -> float:
        """The share of the samples whose margin is below `limit`."""
        return float((self.margins < limit).mean())

    def flips_with(self, limit: float) -> tuple[int, int]:
        """How many answers become right, and how many wrong, were all with a margin below `limit` those of the
        reference. Of a metric of right and wrong answers.
        """
        change = (self.after - self.before)[self.margins >= limit, 0]
        return int((change > 0).sum()), int((change < 0).sum())

    def change_with(self, limit: float) -> Figure:
        """The change of the first metric, were all answers with a margin below `limit` those of the reference."""
        settled = np.where((self.margins < limit)[:, None], self.before, self.after)
        return change_of(self.pair.data.dataset.metric, self.before, settled, self.pair.plan.seed)


def margin_of(outputs: Arrays) -> float | None:
    """The margin of one sample's answer, outputs without batch axis; None where the first output holds no scores."""
    scores = np.asarray(next(iter(outputs.values())))
    if scores.dtype.kind != "f" or scores.ndim < 1 or scores.shape[-1] < 2:
        return None
    two = np.partition(scores, -2, axis=-1)[..., -2:].astype(np.float64)
    with np.errstate(invalid="ignore"):
        margin = float((two[..., 1] - two[..., 0]).min())
    # Scores that are no numbers or infinite, as where f16 overflows, decide nothing.
    return margin if np.isfinite(margin) else 0.0


def margins_of(pair: Pair) -> Margins | None:
    """Answer every sample of the pair's data with the candidate. None where its first output holds no scores."""
    fill_book(pair)
    dataset, arm = pair.data.dataset, pair.candidate
    margins: list[float] = []
    answers: dict[int, Any] = {}
    for position, index in enumerate(pair.data.indices):
        sample = sample_for(arm.signature, pair.data, position)
        outputs = unbatch(arm.signature, sample, arm.run(feed(arm.signature, [sample])))
        margin = margin_of(outputs)
        if margin is None:
            return None
        margins.append(margin)
        answers[index] = dataset.decode(outputs)
    before, after = rows_of(dataset.metric, pair, answers)
    return Margins(np.array(margins), before, after, pair, answers)
