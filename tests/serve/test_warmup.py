from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.serve import warmup
from hasten.serve.batch import shape_key
from hasten.serve.events import Warmed


def sample(*shape: int) -> dict[str, Any]:
    return {"x": np.zeros((1, *shape))}


@given(st.integers(1, 33))
def test_every_batch_size_that_can_be_formed_runs_once(max_batch: int) -> None:
    assert sorted(warmup.sizes(max_batch)) == list(range(1, max_batch + 1))


@given(st.integers(34, 5000))
def test_larger_limits_are_covered_evenly_with_a_bound(max_batch: int) -> None:
    sizes = warmup.sizes(max_batch)
    assert len(set(sizes)) == len(sizes) <= 64
    assert set(sizes) >= {*range(1, 33), max_batch}
    gaps = np.diff(sorted(size for size in sizes if size >= 32))
    assert gaps.max() <= np.ceil((max_batch - 32) / 32)


@given(st.integers(2, 5000))
def test_the_largest_batch_runs_first_and_then_a_single_row(max_batch: int) -> None:
    assert warmup.sizes(max_batch)[:2] == [max_batch, 1]


def test_each_shape_of_the_samples_is_warmed_up_and_no_more_than_four() -> None:
    chosen = warmup.distinct([sample(2), sample(3), sample(2), *(sample(n) for n in range(4, 20))])
    assert [item["x"].shape for item in chosen] == [(1, 2), (1, 3), (1, 4), (1, 5)]
    assert [len(batch) for batch in warmup.batches(chosen[:2], 3)][:6] == [3, 3, 1, 1, 2, 2]


def test_the_sizes_that_are_compared_run_twice_more() -> None:
    assert [len(batch) for batch in warmup.batches([sample(2)], 5)][5:] == [1, 2, 4, 5] * 2


def test_the_scheduler_is_told_of_sizes_that_ran_more_than_once() -> None:
    watch = warmup.Stopwatch()
    for rows, seconds in ((2, 0.5), (1, 0.3), (2, 0.2), (3, 0.9)):
        watch.ran("f32", [sample(4)] * rows, seconds)
    key = shape_key(sample(4))
    assert watch.found() == [Warmed("f32", 2, key, (0.5, 0.2))]


def test_what_many_rows_ran_alone_counts_as_many() -> None:
    watch = warmup.Stopwatch()
    for seconds in (0.2, 0.1):
        watch.ran("f32", [{"x": np.zeros((3, 4))}] * 2, seconds)
    assert [found.rows for found in watch.found()] == [6]


@pytest.mark.parametrize(("elapsed", "ran"), [(9.0, [8, 1, 2, 3, 4, 5, 6, 7, 1, 2, 4, 8, 1, 2, 4, 8]), (11.0, [8, 1])])
def test_a_slow_model_runs_only_what_must_run(monkeypatch: pytest.MonkeyPatch, elapsed: float, ran: list[int]) -> None:
    times = iter([0.0, *[elapsed] * 20])
    monkeypatch.setattr(warmup, "time", SimpleNamespace(monotonic=lambda: next(times)))
    assert [len(batch) for batch in warmup.batches([sample(2)], 8)] == ran


def test_a_bundle_without_samples_warms_up_nothing() -> None:
    assert list(warmup.batches([], 8)) == []
