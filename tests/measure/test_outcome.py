"""From a log of calls to figures: nothing that happened to a request is left out."""

from __future__ import annotations

import pytest

from hasten.errors import RequestError, UsageError
from hasten.measure.load import parse_load
from hasten.measure.outcome import Call, summarize

POISSON, CLOSED = parse_load("poisson:10"), parse_load("closed:1")


def answered(due: float, ms: float, late: float = 0.0) -> Call:
    return Call(due_s=due, sent_s=due + late, done_s=due + ms / 1e3)


def steady(count: int, every: float, ms: float) -> list[Call]:
    return [answered(i * every, ms) for i in range(count)]


def test_latency_counts_from_when_a_request_was_due_and_the_late_ones_are_counted() -> None:
    result = summarize(POISSON, [answered(i, 50, late=0.04) for i in range(10)], 10.0)
    assert result.latency_p50_ms.value == pytest.approx(50)
    assert result.late == 10


def test_percentiles_are_refused_where_the_sample_is_too_small() -> None:
    result = summarize(POISSON, steady(100, 0.1, 5), 10.0)
    assert result.latency_p95_ms.value == pytest.approx(5)
    assert "at least 368" in (result.latency_p99_ms.reason or "")


def test_the_warm_up_is_not_measured() -> None:
    calls = [answered(-1.0 + i * 0.1, 900) for i in range(10)] + steady(20, 0.1, 5)
    result = summarize(POISSON, calls, 2.0)
    assert (result.requests, result.latency_p50_ms.value) == (20, pytest.approx(5))


def test_failures_are_counted_by_kind_and_never_timed() -> None:
    failed = [Call(due_s=1, sent_s=1, done_s=1.001, failure=kind) for kind in ("overloaded", "timeout", "overloaded")]
    result = summarize(POISSON, [*steady(20, 0.1, 5), *failed], 2.0)
    assert (result.failed, result.failures) == (3, {"overloaded": 2, "timeout": 1})
    assert result.latency_p50_ms.n == 20


def test_unanswered_requests_stand_behind_all_others_in_the_percentiles() -> None:
    calls = [*steady(80, 0.1, 5), *[Call(due_s=8 + i / 10, sent_s=8.0) for i in range(15)], *[Call(due_s=9.9)] * 5]
    result = summarize(POISSON, calls, 10.0)
    assert (result.unanswered, result.unsent) == (15, 5)
    assert result.latency_p50_ms.value == pytest.approx(5)
    assert result.latency_p95_ms.value is None
    assert "20 requests that nobody answered" in (result.latency_p95_ms.reason or "")


def test_the_upper_bound_of_a_percentile_is_open_where_it_lies_among_unanswered_requests() -> None:
    result = summarize(POISSON, [*steady(80, 0.1, 5), *[Call(due_s=9, sent_s=9.0)] * 3], 10.0)
    assert result.latency_p95_ms.value is not None
    assert (result.latency_p95_ms.low, result.latency_p95_ms.high) == (pytest.approx(5), None)


def test_attainment_is_the_share_of_all_requests_and_goodput_its_rate() -> None:
    calls = [*steady(60, 0.1, 5), *[answered(6 + i / 10, 50) for i in range(20)]]
    calls += [Call(due_s=8 + i / 10, sent_s=8, done_s=8.1, failure="overloaded") for i in range(10)]
    calls += [Call(due_s=9 + i / 10) for i in range(10)]
    result = summarize(POISSON, calls, 10.0, deadline_ms=20)
    assert result.attainment.value == pytest.approx(0.6)
    assert (result.attainment.low, result.attainment.high) == (
        pytest.approx(0.502, abs=2e-3),
        pytest.approx(0.691, abs=2e-3),
    )
    assert result.goodput_rps.value == pytest.approx(6)


def test_without_a_deadline_attainment_says_so() -> None:
    assert "--deadline-ms" in (summarize(CLOSED, steady(10, 1, 5), 10.0).attainment.reason or "")


def test_a_server_that_lags_behind_is_not_credited_with_answers_after_the_load() -> None:
    # 10 requests a second for 10 s, answered at 5 a second for 20 s.
    calls = [Call(due_s=i / 10, sent_s=i / 10, done_s=(i + 1) / 5) for i in range(100)]
    result = summarize(POISSON, calls, 10.0)
    assert result.throughput_rps.value == pytest.approx(5)
    assert result.offered_rps == pytest.approx(10)


def test_a_closed_loop_counts_what_is_finished_within_its_time() -> None:
    calls = [Call(due_s=-0.05 + i / 10, sent_s=0, done_s=0.05 + i / 10) for i in range(101)]
    result = summarize(CLOSED, calls, 10.0)
    assert result.throughput_rps.value == pytest.approx(10)
    assert result.throughput_rps.low == pytest.approx(10, abs=0.3)
    assert result.offered_rps is None


def test_a_rate_that_changes_by_design_has_no_interval() -> None:
    result = summarize(parse_load("step:10,20:5"), steady(150, 1 / 15, 5), 10.0)
    assert (result.throughput_rps.value, result.throughput_rps.low) == (pytest.approx(15), None)


def test_a_run_without_any_answer_raises_its_first_error() -> None:
    error = RequestError("shed", code="overloaded")
    with pytest.raises(RequestError, match="shed"):
        summarize(CLOSED, [Call(due_s=0, sent_s=0, done_s=1, failure="overloaded", error=error)], 1.0)
    with pytest.raises(RequestError, match="None of 1 requests"):
        summarize(POISSON, [Call(due_s=0, sent_s=0)], 1.0)
    with pytest.raises(UsageError, match="no request"):
        summarize(POISSON, [], 1.0)
