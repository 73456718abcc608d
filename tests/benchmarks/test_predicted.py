"""Predictions beside measurements: errors have a sign, and what was not measured is not an error of 0."""

from __future__ import annotations

import msgspec
import pytest

from hasten.engine.host import environment
from hasten.spec.measurement import Figure, unmeasured
from hasten.spec.serving import Prediction, Rehearsal
from predicted import Row, error, is_open, page


def figure(value: float) -> Figure:
    return Figure(value=value, low=None, high=None, n=9)


def row(told: float, seen: float | None, *, share: float = 0.6, failed: int = 0) -> Row:
    found = unmeasured("too few") if seen is None else figure(seen)
    return Row(
        model="m", variant="v", serving="1 instance", share=share, turns=7, requests=700,
        predicted=Prediction(
            load_rps=10.0, latency_p50_ms=figure(told), latency_p95_ms=figure(told), latency_p99_ms=figure(told),
            throughput_rps=figure(10.0), utilisation=0.5,
        ),
        found=Rehearsal(
            load_rps=10.0, offered_rps=10.0, latency_p50_ms=found, latency_p95_ms=found, latency_p99_ms=found,
            throughput_rps=figure(10.0), failed=failed,
        ),
    )  # fmt: skip


def test_a_prediction_that_is_too_low_has_a_negative_error() -> None:
    assert error(row(9.0, 10.0), "latency_p99_ms") == pytest.approx(-0.1)
    assert error(row(12.0, 10.0), "latency_p99_ms") == pytest.approx(0.2)


def test_what_was_not_measured_is_no_error_and_not_within_the_bar() -> None:
    assert error(row(9.0, None), "latency_p99_ms") is None
    assert "| 9 | not measured | not measured | not measured |" in page([row(9.0, None)], environment())


def test_each_load_has_its_line_and_the_page_counts_those_within_the_bar() -> None:
    told = page([row(9.0, 10.0), row(13.0, 10.0, share=0.3, failed=2)], environment())
    assert "| 60%, 10/s | 700, 7 | 9 | 10 | -10% | yes | 10 | 10 | +0% | yes |" in told
    assert "| 30%, 10/s | 700, 7; 2 not answered | 13 | 10 | +30% | no |" in told
    assert "p99 in 1 of 2 rows, and open in 0 more; throughput in 2." in told


@pytest.mark.parametrize(("told", "word"), [(11.4, "yes"), (13.5, "open"), (13.9, "no"), (7.7, "open"), (7.6, "no")])
def test_a_prediction_that_is_close_to_something_within_the_interval_is_open(told: float, word: str) -> None:
    one = row(told, 10.0)
    wide = Figure(value=10.0, low=9.0, high=12.0, n=9)
    one = msgspec.structs.replace(one, found=msgspec.structs.replace(one.found, latency_p99_ms=wide))
    assert is_open(one, "latency_p99_ms") == (word == "open")
    assert f"| {word} | 10 | 10 |" in page([one], environment())
