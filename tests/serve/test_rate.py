from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.errors import UsageError
from hasten.serve.rate import Bucket, Rate, Rates

# Powers of two, so that seconds are exact and a bound can be held to the last request.
RATES = st.builds(
    lambda power, burst: Rate(requests_per_s=2.0**power, burst=burst), st.integers(-6, 12), st.integers(1, 64)
)
GAPS = st.lists(st.integers(0, 2**14).map(lambda ticks: ticks / 2**12), min_size=1, max_size=120)


def times(gaps: list[float]) -> list[float]:
    now, found = 0.0, []
    for gap in gaps:
        now += gap
        found.append(now)
    return found


@given(RATES, GAPS)
def test_in_no_stretch_of_time_more_are_let_in_than_burst_and_rate_allow(rate: Rate, gaps: list[float]) -> None:
    bucket = Bucket(rate)
    let_in = [now for now in times(gaps) if not bucket.take(now)]
    for first, begin in enumerate(let_in):
        for last in range(first, len(let_in)):
            assert last - first + 1 <= rate.burst + rate.requests_per_s * (let_in[last] - begin)


@given(RATES, GAPS)
def test_whoever_comes_back_after_the_wait_is_let_in_and_not_sooner(rate: Rate, gaps: list[float]) -> None:
    bucket = Bucket(rate)
    for now in times(gaps):
        wait_s = bucket.take(now)
        if wait_s:
            assert bucket.take(now + wait_s / 2) > 0
            assert bucket.take(now + wait_s) == 0
            return


@given(RATES, st.integers(1, 200))
def test_whoever_keeps_to_the_rate_is_never_refused(rate: Rate, count: int) -> None:
    bucket = Bucket(rate)
    assert not any(bucket.take(number / rate.requests_per_s) for number in range(count))


@given(RATES)
def test_after_a_rest_a_burst_is_let_in_at_once_and_no_more(rate: Rate) -> None:
    bucket = Bucket(rate)
    assert not any(bucket.take(1000.0) for _ in range(rate.burst))
    assert bucket.take(1000.0) == 1 / rate.requests_per_s


@given(RATES, GAPS)
def test_refusals_cost_nothing(rate: Rate, gaps: list[float]) -> None:
    asked_often, asked_once = Bucket(rate), Bucket(rate)
    for now in times(gaps):
        first = asked_often.take(now)
        assert first == asked_once.take(now)
        if first:
            assert [asked_often.take(now) for _ in range(3)] == [first] * 3


def test_clients_do_not_take_from_each_other() -> None:
    rates = Rates(Rate(requests_per_s=1, burst=1))
    assert [rates.take(client, "", 0.0) for client in "aab"] == [0.0, 1.0, 0.0]


def test_a_tenant_with_a_rate_of_its_own_has_it_whoever_of_it_asks() -> None:
    own = {"fast": Rate(requests_per_s=1, burst=3), "free": None}
    rates = Rates(Rate(requests_per_s=1, burst=1), own)
    assert [rates.take(client, "fast", 0.0) for client in "abab"] == [0.0, 0.0, 0.0, 1.0]
    assert [rates.take(client, "other", 0.0) for client in "abab"] == [0.0, 0.0, 1.0, 1.0]
    assert not any(rates.take("a", "free", 0.0) for _ in range(9))
    assert not any(Rates(None, own).take("a", "other", 0.0) for _ in range(9))


@given(st.integers(4097, 9000), st.integers(1, 4))
def test_however_many_clients_come_those_that_have_rested_are_forgotten(count: int, at_once: int) -> None:
    rates = Rates(Rate(requests_per_s=1, burst=1))
    for number in range(count):
        assert not rates.take(str(number), "", float(number // at_once * 10))
    assert len(rates) <= 4096 + at_once


@pytest.mark.parametrize(("requests_per_s", "at_once"), [(0.1, 1), (1, 1), (20.5, 20)])
def test_without_a_burst_of_its_own_a_second_s_worth_comes_at_once(requests_per_s: float, at_once: int) -> None:
    assert Rate(requests_per_s=requests_per_s).at_once == at_once


@pytest.mark.parametrize(("requests_per_s", "burst"), [(0, 1), (-1, 1), (float("nan"), 1), (1, -1)])
def test_a_rate_that_lets_nobody_in_is_refused(requests_per_s: float, burst: int) -> None:
    with pytest.raises(UsageError):
        Rate(requests_per_s=requests_per_s, burst=burst)
