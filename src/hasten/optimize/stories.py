"""What a variant changed, for people to look at: the samples whose answers changed most, and those samples themselves.

Stories are told on tuning data. Holdout samples stay unseen, so that nobody mends a model by looking at them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hasten.data.dataset import Dataset
from hasten.data.metrics import Metric
from hasten.data.show import show
from hasten.spec.evidence import Shown, Story

__all__ = ["shown_samples", "stories"]

_STORIES = 6
_WORDS = 120
# Numbers that move by less than this share of the usual norm of answers moved by rounding (as `stats.change` has it).
_ROUNDING = 0.05
# Bytes of pictures and words in a record: a page with them in base64 stays well below 2 MB.
_MOST_BYTES = 800_000


def stories(variant: str, dataset: Dataset, reference: Mapping[int, Any], answers: Mapping[int, Any]) -> list[Story]:
    """Return the samples whose answers changed most: by what the metrics lost, then by how far the answer moved."""
    told: list[tuple[tuple[float, ...], int]] = []
    usual = _usual_norm([reference[index] for index in answers])
    for index, answer in answers.items():
        before, moved = reference[index], _moved(reference[index], answer, usual)
        lost = tuple(_lost(metric, before, answer, dataset.label(index)) for metric in dataset.metrics)
        if moved > _ROUNDING or (moved and any(lost)):
            told.append(((*(-loss for loss in lost), -moved), index))
    return [_story(variant, dataset, index, reference[index], answers[index]) for _, index in sorted(told)[:_STORIES]]


def shown_samples(dataset: Dataset, told: Iterable[Story], first: Sequence[str]) -> list[Shown]:
    """Return the samples of stories as words or pictures, those of the variants `first` first, as far as room is."""
    ordered = sorted(told, key=lambda story: story.variant not in first)
    room, shown = _MOST_BYTES, list[Shown]()
    for index in dict.fromkeys(story.sample for story in ordered):
        found = show(dataset, index)
        size = len(found.picture) + len(found.text) if found is not None else 0
        if found is not None and size <= room:
            shown.append(found)
            room -= size
    return shown


def _story(variant: str, dataset: Dataset, index: int, before: Any, after: Any) -> Story:
    label = dataset.label(index)
    return Story(
        variant=variant,
        sample=index,
        label="" if label is None else (dataset.class_name(label) or _said(dataset, label))[:_WORDS],
        reference=_said(dataset, before),
        answer=_said(dataset, after),
    )


def _lost(metric: Metric, before: Any, after: Any, label: Any) -> float:
    """By how much the answer to one sample became worse; 0 where one sample has no value of its own."""
    truth = before if metric.name == "agreement" else label
    try:
        first, second = (float(metric.aggregate(np.array([metric.row(a, truth)], np.float64))) for a in (before, after))
    except Exception:
        # A metric of the user's own over many samples may not be defined for one.
        return 0.0
    change = second - first
    return 0.0 if not np.isfinite(change) else -change if metric.higher_is_better else change


def _usual_norm(answers: Sequence[Any]) -> float:
    """Root mean square of the norms of answers that are numbers; 0 where there are none."""
    arrays = (np.asarray(answer) for answer in answers)
    squares = [float(np.sum(np.square(array))) for array in arrays if array.dtype.kind == "f"]
    return float(np.sqrt(np.nanmean(squares))) if np.isfinite(squares).any() else 0.0


def _moved(before: Any, after: Any, usual: float) -> float:
    """How far an answer moved, as a share of the usual norm; 1 where answers differ and are no numbers."""
    first, second = np.asarray(before), np.asarray(after)
    if first.shape == second.shape and np.array_equal(first, second):
        return 0.0
    if first.shape != second.shape or first.dtype.kind != "f" or second.dtype.kind != "f":
        return 1.0
    moved = float(np.linalg.norm(np.subtract(second, first).ravel()))
    return moved / usual if usual and np.isfinite(moved) else 1.0


def _said(dataset: Dataset, answer: Any) -> str:
    """An answer in a few words: the name of its class, a number, the first of many numbers. A score is no class."""
    value = np.asarray(answer)
    if value.dtype.kind != "f":
        return (dataset.class_name(answer) or str(answer))[:_WORDS]
    if value.size == 1:
        return f"{value.item():.4g}"
    few = ", ".join(f"{number:.3g}" for number in value.ravel()[:4])
    return f"{value.size} numbers: {few}{', …' if value.size > 4 else ''}"
