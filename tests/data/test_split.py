"""Three splits that leak nothing, and a seal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.data import Dataset
from hasten.data.split import split
from hasten.errors import DataError


def dataset(values: list[int], groups: list[int] | None = None) -> Dataset:
    return Dataset(inputs={"x": np.array(values, np.float32)[:, None]}, groups=groups)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 200), min_size=120, max_size=300), st.integers(0, 50))
def test_every_sample_is_in_one_split_and_copies_stay_together(values: list[int], seed: int) -> None:
    if len(set(values)) < 30:
        return
    data = dataset(values)
    splits = split(data, seed=seed)
    parts = [splits.calibration, splits.tuning, splits.holdout.open([])]
    indices = sorted(i for part in parts for i in part.indices)
    assert indices == list(range(len(values)))
    owners: dict[int, set[int]] = {}
    for number, part in enumerate(parts):
        assert len(part) > 0
        for i in part.indices:
            owners.setdefault(values[i], set()).add(number)
    assert all(len(numbers) == 1 for numbers in owners.values())


def test_groups_stay_together_even_where_samples_differ() -> None:
    groups = [i // 5 for i in range(300)]
    splits = split(dataset(list(range(300)), groups))
    for part in (splits.calibration, splits.tuning):
        for i in part.indices:
            assert all(j in part.indices for j in range(300) if groups[j] == groups[i])


def test_the_same_seed_deals_the_same_and_another_does_not() -> None:
    data = dataset(list(range(200)))
    assert split(data, seed=1).tuning.indices == split(data, seed=1).tuning.indices
    assert split(data, seed=1).tuning.indices != split(data, seed=2).tuning.indices


def test_the_holdout_split_opens_once() -> None:
    splits = split(dataset(list(range(100))))
    assert splits.holdout.opened_for is None
    splits.holdout.open(["a"])
    assert splits.holdout.opened_for == ("a",)
    with pytest.raises(AssertionError, match="already opened"):
        splits.holdout.open(["b"])


def test_too_few_distinct_samples_are_refused_with_a_remedy() -> None:
    with pytest.raises(DataError, match=r"29 distinct samples; at least 30.*Give more samples"):
        split(dataset([i % 29 for i in range(500)]))
