"""Whether one group of numbers tends to be lower than another."""

from __future__ import annotations

import numpy as np
import pytest

from hasten.stats.ranks import lower


def test_a_lower_group_is_found_and_a_higher_one_is_not() -> None:
    low, high = np.arange(10.0), np.arange(10.0) + 6
    assert lower(low, high) < 0.01
    assert lower(high, low) > 0.99


def test_equal_groups_are_no_evidence() -> None:
    assert lower(np.arange(20.0), np.arange(20.0)) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("some", "others"), [([], [1.0]), ([1.0], []), ([], [])])
def test_an_empty_group_is_no_evidence(some: list[float], others: list[float]) -> None:
    assert lower(np.array(some), np.array(others)) == 1.0
