"""Accuracy class by class: which classes pay for a change that the mean of all hides.

Classes are small where the whole is not, so most of them can say little; the interval of each says how little. Nothing
is judged by these figures: with many classes some intervals exclude zero by chance. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hasten.data.dataset import Dataset
from hasten.data.metrics import Metric
from hasten.spec.evidence import ClassChange, ClassChanges
from hasten.spec.measurement import Figure, unmeasured
from hasten.stats.change import binary_change, share

__all__ = ["FEWEST", "class_changes"]

# With fewer samples, and none of them changed, the interval of a change reaches 28 points either way and more.
FEWEST = 10
# A record with a thousand classes helps nobody; those that changed most are kept.
_MOST = 200
_LONGEST = 80
# More distinct labels than this share of the samples are no classes: lines of text, identities.
_DISTINCT = 0.5

Answers = Mapping[int, Any]


def class_changes(
    variant: str, dataset: Dataset, indices: Sequence[int], reference: Answers, answers: Answers
) -> ClassChanges | None:
    """Return the changes on the samples at `indices`, given both sides' answers by sample; None without classes.

    Data has classes where its labels are numbers or words that repeat, and a metric calls each answer right or wrong.
    """
    metric = next((item for item in dataset.metrics if item.kind == "binary" and item.name != "agreement"), None)
    labels = _labels(dataset, indices) if metric is not None else None
    if metric is None or labels is None:
        return None
    members: dict[Any, list[int]] = {}
    for index, label in zip(indices, labels, strict=True):
        members.setdefault(label, []).append(index)
    if not 2 <= len(members) <= max(2.0, _DISTINCT * len(labels)):
        return None
    found = [_change(dataset, metric, label, inside, reference, answers) for label, inside in members.items()]
    ordered = tuple(change for _, change in sorted(found, key=lambda item: item[0]))
    return ClassChanges(variant=variant, metric=metric.info, total=len(found), changes=ordered[:_MOST])


def _labels(dataset: Dataset, indices: Sequence[int]) -> list[Any] | None:
    """Labels that can be those of classes: whole numbers, truth values, short texts."""
    labels: list[Any] = []
    for index in indices:
        value = np.asarray(dataset.label(index))
        if value.size != 1:
            return None
        label = value.item()
        whole = isinstance(label, int) or (isinstance(label, float) and label.is_integer())
        if not whole and not (isinstance(label, str) and len(label) <= _LONGEST):
            return None
        labels.append(label)
    return labels


def _change(
    dataset: Dataset, metric: Metric, label: Any, inside: Sequence[int], reference: Answers, answers: Answers
) -> tuple[tuple[Any, ...], ClassChange]:
    """The change in one class, and where it stands among the others: what says something, what changed most, losses."""
    before = [metric.row(reference[index], dataset.label(index))[0] for index in inside]
    after = [metric.row(answers[index], dataset.label(index))[0] for index in inside]
    value, small = float(np.mean(after) - np.mean(before)), len(inside) < FEWEST
    place = (small, -abs(value), value, -len(inside), str(label))
    change = ClassChange(
        name=(dataset.class_name(label) or str(label))[:_LONGEST],
        samples=len(inside),
        reference=share(before),
        accuracy=share(after),
        change=_too_few(len(inside)) if small else binary_change(before, after),
    )
    return place, change


def _too_few(samples: int) -> Figure:
    return unmeasured(f"{samples} sample{'' if samples == 1 else 's'}: too few to say anything")
