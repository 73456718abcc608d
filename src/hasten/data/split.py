"""Three splits, and a seal on the third.

Calibration data shapes a variant, tuning data (and behind them calibration data, docs/decisions/0020) picks among
variants, holdout data makes the claim. The holdout split stays sealed until the picks are fixed; breaking the seal
twice, or before that, is an error of ours and not of the user.

Equal samples, and samples of one group, always land in the same split: a copy of a calibration sample in the
holdout split would be leakage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hasten.data.dataset import Dataset, Subset
from hasten.errors import DataError

__all__ = ["FRACTIONS", "Sealed", "Splits", "split"]

# Shares of calibration, tuning and holdout. The claim needs the most samples, because it must prove a small bound.
FRACTIONS = (0.10, 0.25, 0.65)
MINIMUM = 30


class Sealed:
    """The holdout split. `open(picks)` gives it once, to whoever shows that the choice is made."""

    def __init__(self, subset: Subset) -> None:
        self._subset = subset
        self._opened_for: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self._subset)

    @property
    def opened_for(self) -> tuple[str, ...] | None:
        """The picks that the split was opened for; None while it is sealed."""
        return self._opened_for

    def open(self, picks: Sequence[str]) -> Subset:
        """Break the seal. Raises `AssertionError` on a second time: one claim, one look."""
        assert self._opened_for is None, f"the holdout split was already opened for {self._opened_for}"
        self._opened_for = tuple(picks)
        return self._subset


class Splits:
    """Calibration and tuning subsets, and the sealed holdout. `choosing` are the samples by which variants are chosen:
    those for tuning, and behind them those for calibration, since rare losses show on many samples only. What was
    calibrated on these is flattered a little; the claim is not.
    """

    def __init__(self, calibration: Subset, tuning: Subset, holdout: Subset) -> None:
        self.calibration = calibration
        self.tuning = tuning
        self.choosing = tuning.dataset.subset([*tuning.indices, *calibration.indices])
        self.holdout = Sealed(holdout)


def split(dataset: Dataset, *, seed: int = 0, fractions: tuple[float, float, float] = FRACTIONS) -> Splits:
    """Deal the samples into three splits by a seeded shuffle of groups of equal or related samples.

    Raises `DataError` where fewer than 30 distinct groups exist: no interval could be narrow enough to prove
    anything.
    """
    clusters = _clusters(dataset)
    if len(clusters) < MINIMUM:
        raise DataError(
            f"The data {dataset.name!r} has {len(clusters)} distinct samples; at least {MINIMUM} are needed "
            "to split it into calibration, tuning and holdout.",
            remedy="Give more samples; several hundred let hasten prove a bound of a point or less.",
        )
    order = np.random.default_rng(seed).permutation(len(clusters))
    cuts = _cuts([len(clusters[i]) for i in order], fractions)
    parts: list[list[int]] = [[], [], []]
    for position, cluster in enumerate(order):
        parts[int(np.searchsorted(cuts, position, side="right"))].extend(clusters[cluster])
    calibration, tuning, holdout = (dataset.subset(part) for part in parts)
    _refuse_leakage(dataset, (calibration, tuning, holdout))
    return Splits(calibration, tuning, holdout)


def _clusters(dataset: Dataset) -> list[list[int]]:
    """Indices that must stay together: equal samples, and samples of one group (union-find over both relations)."""
    parent = list(range(len(dataset)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    relations: list[Sequence[Any]] = [dataset.digests()]
    if dataset.groups is not None:
        relations.append(dataset.groups)
    for relation in relations:
        first: dict[Any, int] = {}
        for index, key in enumerate(relation):
            parent[root(index)] = root(first.setdefault(key, index))
    clusters: dict[int, list[int]] = {}
    for index in range(len(dataset)):
        clusters.setdefault(root(index), []).append(index)
    return list(clusters.values())


def _cuts(sizes: list[int], fractions: tuple[float, float, float]) -> tuple[int, int]:
    """Where to cut the shuffled clusters so that the sample counts come close to the fractions; no part stays
    empty.
    """
    filled = np.cumsum(sizes) / sum(sizes)
    first = max(1, int(np.searchsorted(filled, fractions[0])))
    second = max(first + 1, int(np.searchsorted(filled, fractions[0] + fractions[1])))
    return first, min(second, len(sizes) - 1)


def _refuse_leakage(dataset: Dataset, parts: tuple[Subset, ...]) -> None:
    digests = dataset.digests()
    seen: dict[str, int] = {}
    for number, part in enumerate(parts):
        for index in part.indices:
            if seen.setdefault(digests[index], number) != number:
                raise DataError(f"Sample {index} of {dataset.name!r} stands in two splits.")
