"""Operators under the ceilings."""

from __future__ import annotations

import pytest

from hasten.profile.roofline import bandwidth_for, place
from hasten.spec.measurement import Figure, unmeasured
from hasten.spec.profile import Bandwidth, Ceilings


def figure(value: float) -> Figure:
    return Figure(value=value, low=value / 2, high=value * 2, n=9)


CEILINGS = Ceilings(
    threads=1,
    compute_gflop_per_s=figure(100.0),
    memory=(
        Bandwidth(working_set_bytes=10_000, gb_per_s=figure(100.0)),
        Bandwidth(working_set_bytes=1_000_000, gb_per_s=figure(10.0)),
    ),
)


def test_much_arithmetic_on_few_bytes_is_bound_by_compute() -> None:
    # 50 million FLOPs at 100 GFLOP/s are 500 µs.
    placed = place(figure(1000.0), 50_000_000, 10_000, CEILINGS)
    assert placed.bound == "compute"
    assert placed.share.value == pytest.approx(0.5)
    assert (placed.share.low, placed.share.high) == (pytest.approx(0.25), pytest.approx(1.0))


def test_little_arithmetic_on_many_bytes_is_bound_by_memory() -> None:
    # A million bytes at 10 GB/s are 100 µs.
    placed = place(figure(200.0), 1000, 1_000_000, CEILINGS)
    assert (placed.bound, placed.share.value) == ("memory", pytest.approx(0.5))


def test_what_neither_explains_is_overhead() -> None:
    assert place(figure(200.0), 1000, 10_000, CEILINGS).bound == "overhead"
    assert place(figure(200.0), 0, 0, CEILINGS).bound == "overhead"


def test_the_bandwidth_is_that_of_a_working_set_of_the_same_size() -> None:
    assert bandwidth_for(CEILINGS.memory, 10) == 100.0
    assert bandwidth_for(CEILINGS.memory, 100_000) == pytest.approx(1000**0.5)
    assert bandwidth_for(CEILINGS.memory, 10**9) == 10.0


@pytest.mark.parametrize(
    ("flops", "moved", "ceilings", "reason"),
    [
        (None, 10, CEILINGS, "its work is unknown"),
        (10, None, CEILINGS, "what it moves is unknown"),
        (10, 10, Ceilings(threads=1, compute_gflop_per_s=unmeasured("it runs on GPU"), memory=()), "it runs on GPU"),
    ],
)
def test_what_cannot_be_placed_says_why(flops: int, moved: int, ceilings: Ceilings, reason: str) -> None:
    placed = place(figure(10.0), flops, moved, ceilings)
    assert placed.bound is None
    assert reason in str(placed.reason)
    assert placed.share.value is None
