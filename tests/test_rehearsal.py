"""Turns of a rehearsal joined to one prediction and one measurement."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from hasten.fleet.simulate import Played
from hasten.measure.outcome import Call
from hasten.rehearsal import Stretch, conclude, shuffled
from hasten.spec.serving import Serving


def stretch(ms: float, *, count: int = 400, told_ms: float = 10.0, lost: int = 0, late: int = 0) -> Stretch:
    """Four seconds of requests that come evenly and take `ms` each, the last `lost` of which nobody answered."""
    due = [4 * at / count for at in range(count)]
    sent = [at + (0.006 if number < late else 0.0) for number, at in enumerate(due)]
    calls = [Call(due_s=at, sent_s=off, done_s=at + ms / 1e3) for at, off in zip(due, sent, strict=True)]
    for call in calls[count - lost :]:
        call.done_s = None
    played = [Played(latencies_s=[told_ms / 1e3] * count, busy_s=2.0, ended_s=4.0, batches=count) for _ in range(9)]
    return Stretch(load_rps=count / 4, seconds=4.0, played=played, calls=calls)


def test_latencies_of_all_turns_are_looked_at_together() -> None:
    predicted, found = conclude([stretch(10.0, told_ms=9.0), stretch(20.0, told_ms=19.0)], Serving())
    assert predicted.latency_p99_ms.value == pytest.approx(19.0)
    assert found.latency_p99_ms.value == pytest.approx(20.0)
    assert (found.offered_rps, found.failed, found.late) == (100.0, 0, 0)
    assert found.throughput_rps.value == pytest.approx(100.0, rel=0.01)
    assert predicted.throughput_rps.value == pytest.approx(100.0)


def test_a_machine_that_may_move_widens_the_interval_of_a_prediction_and_leaves_its_value() -> None:
    turn = stretch(10.0)
    moved = [Played(latencies_s=[0.05] * 400, busy_s=2.0, ended_s=4.0, batches=400)] * 4
    predicted, _ = conclude([replace(turn, played=[*turn.played[:5], *moved])], Serving())
    p99 = predicted.latency_p99_ms
    assert (p99.low, p99.value, p99.high) == pytest.approx((10.0, 10.0, 50.0))


def test_the_interval_of_a_percentile_knows_that_slow_requests_come_together() -> None:
    _, found = conclude([*[stretch(10.0)] * 3, stretch(30.0, count=40)], Serving())
    p99 = found.latency_p99_ms
    assert p99.low == pytest.approx(10.0)
    assert p99.high == pytest.approx(30.0)


def test_a_percentile_among_requests_that_nobody_answered_is_not_measured() -> None:
    _, found = conclude([stretch(10.0), stretch(10.0, lost=20)], Serving())
    assert found.failed == 20
    assert found.latency_p99_ms.value is None
    assert found.latency_p50_ms.value == pytest.approx(10.0)


def test_requests_that_were_sent_late_are_counted() -> None:
    _, found = conclude([stretch(10.0, late=3), stretch(10.0)], Serving())
    assert found.late == 3


def test_every_body_is_sent_as_often_as_any_other_and_the_order_is_the_seeds() -> None:
    order = shuffled(list(range(5)), 0)
    assert set(Counter(order).values()) == {16}
    assert order == shuffled(list(range(5)), 0) != shuffled(list(range(5)), 1)
