"""The arithmetic of the benchmark of the search: shares of time, spread over seeds, and what is said of them."""

from __future__ import annotations

import pytest

from hasten.engine.host import environment
from hasten.spec.measurement import Figure
from quality import Found, Quality, page, share_of_time, spread


def ratio(value: float, width: float = 0.02) -> Figure:
    return Figure(value=value, low=value - width, high=value + width, n=40)


def found(seconds: float, against: float = 1.0, fastest: float = 1.0) -> Found:
    return Found(
        tuning_s=seconds, ran=9, verdict="accepted", variant="v", against_sweep=ratio(against),
        against_fastest=ratio(fastest),
    )  # fmt: skip


def quality(*runs: Found) -> Quality:
    return Quality(model="m", sweep=Found(tuning_s=400.0, ran=30, verdict="accepted", variant="best"), runs=runs)


def test_time_is_told_as_a_share_of_the_sweeps() -> None:
    assert share_of_time(quality(), found(100.0)) == 0.25


def test_the_spread_is_how_far_the_slowest_seed_falls_behind() -> None:
    assert spread(quality(found(1.0, fastest=1.0), found(1.0, fastest=0.9))) == pytest.approx(0.1)


def test_a_seed_that_is_surely_close_and_quick_is_counted_as_such() -> None:
    told = page([quality(found(90.0, 1.0), found(120.0, 0.96), found(90.0, 0.5))], environment(), 120.0)
    assert "| m | surely 1, possibly 2 of 3 | 2 of 3 | yes: 0.0% |" in told
    assert "| m, seed 1 | `v` | 9 | 120 s | 30% | 0.96 (0.94 to 0.98) |" in told


def test_seeds_that_disagree_are_told() -> None:
    assert "no: 20.0%" in page([quality(found(1.0), found(1.0, fastest=0.8))], environment(), 120.0)
