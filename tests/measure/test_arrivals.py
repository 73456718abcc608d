"""Arrival processes: at their rate, as bursty as asked for, in order, the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.errors import UsageError
from hasten.measure.arrivals import arrivals, lead_in
from hasten.measure.load import Load, parse_load

rates = st.floats(0.5, 400)
seeds = st.integers(0, 2**31)
open_loads = st.one_of(
    st.builds(lambda rate: Load(kind="poisson", value=rate), rates),
    st.builds(lambda rate, cv: Load(kind="gamma", value=rate, cv=cv), rates, st.floats(0.1, 6)),
    st.builds(
        lambda steps, length: Load(kind="step", rates=tuple(steps), step_s=length),
        st.lists(st.one_of(st.just(0.0), rates), min_size=1, max_size=5).filter(any),
        st.floats(0.5, 5),
    ),
)


@given(open_loads, st.floats(0.1, 10), seeds)
@settings(deadline=None)
def test_arrivals_come_in_order_within_the_time_and_again_for_the_same_seed(
    load: Load, length: float, seed: int
) -> None:
    due = arrivals(load, length, seed)
    assert due == sorted(due)
    assert all(0 <= at < length for at in due)
    assert due == arrivals(load, length, seed)


@given(st.one_of(rates.map(lambda r: f"poisson:{r}"), rates.map(lambda r: f"gamma:{r}:3")), st.floats(0.1, 5), seeds)
@settings(deadline=None)
def test_a_longer_run_begins_with_the_arrivals_of_a_shorter(text: str, length: float, seed: int) -> None:
    load = parse_load(text)
    short, long = arrivals(load, length, seed), arrivals(load, 2 * length, seed)
    assert long[: len(short)] == short
    assert all(at >= length for at in long[len(short) :])


@given(st.sampled_from([0.25, 1.0, 2.0, 4.0]), st.floats(20, 200), seeds)
@settings(deadline=None, max_examples=60)
def test_the_rate_of_a_gamma_process_is_the_one_asked_for_however_bursty(cv: float, rate: float, seed: int) -> None:
    # The count over a time T has a standard deviation of cv · sqrt(rate · T) (Cox 1962): six of them never happen.
    length = 4000 / rate
    count = len(arrivals(Load(kind="gamma", value=rate, cv=cv), length, seed))
    assert abs(count - 4000) < 6 * cv * 4000**0.5 + 6


@given(st.floats(20, 200), seeds)
@settings(deadline=None, max_examples=60)
def test_the_rate_of_a_poisson_process_is_the_one_asked_for(rate: float, seed: int) -> None:
    count = len(arrivals(Load(kind="poisson", value=rate), 4000 / rate, seed))
    assert abs(count - 4000) < 6 * 4000**0.5


@pytest.mark.parametrize("cv", [0.25, 1.0, 4.0])
def test_gaps_vary_as_much_as_asked_for(cv: float) -> None:
    gaps = np.diff(arrivals(Load(kind="gamma", value=1000, cv=cv), 100, seed=3))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


def test_a_bursty_process_does_not_begin_with_a_burst() -> None:
    # A gap that was under way when we began to look: otherwise there would be (16 - 1) / 2 arrivals too many.
    load = Load(kind="gamma", value=100, cv=4)
    counts = [len(arrivals(load, 1.0, seed)) for seed in range(600)]
    assert np.mean(counts) == pytest.approx(100, abs=4.5)


def test_each_step_has_its_own_rate_and_a_pause_has_none() -> None:
    due = np.array(arrivals(parse_load("step:100,0,400:10"), 30, seed=0))
    counts, _ = np.histogram(due, [0, 10, 20, 30])
    assert counts[1] == 0
    assert counts[0] == pytest.approx(1000, abs=160)
    assert counts[2] == pytest.approx(4000, abs=320)


def test_a_trace_is_played_as_written_from_its_first_arrival(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("5.0\n7.0\n5.5\n99")
    load = parse_load(f"trace:{tmp_path / 't'}")
    assert arrivals(load, 10.0, seed=0) == [0.0, 0.5, 2.0]
    assert arrivals(load, float("inf"), seed=0) == [0.0, 0.5, 2.0, 94.0]


@pytest.mark.parametrize(("text", "words"), [("a b", "cannot be read"), ("", "no arrival"), ("1\nnan", "finite")])
def test_a_trace_that_makes_no_sense_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "t").write_text(text)
    with pytest.raises(UsageError, match=words):
        arrivals(parse_load(f"trace:{tmp_path / 't'}"), 10.0, seed=0)
    with pytest.raises(UsageError, match="none cannot be read"):
        arrivals(Load(kind="trace", path=str(tmp_path / "none")), 10.0, seed=0)


def test_a_target_is_warmed_up_by_the_kind_of_load_that_comes() -> None:
    assert lead_in(parse_load("gamma:10:4")) == parse_load("gamma:10:4")
    assert lead_in(parse_load("step:10,20:5")) == parse_load("poisson:10")
    assert lead_in(parse_load("step:0,20:5")) is None
    assert lead_in(parse_load("trace:t")) is None
