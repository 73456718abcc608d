from __future__ import annotations

import pytest

from hasten.serve.admit import REASONS, Door, refuse
from hasten.serve.events import Arrived
from hasten.serve.policy import Lane, Policy
from hasten.wire.base import STATUS


def test_every_reason_has_a_code_of_the_protocol() -> None:
    assert {reason.code for reason in REASONS.values()} <= set(STATUS)


def test_who_may_come_back_is_told_when_and_never_at_once() -> None:
    assert refuse(1, "queue full", 0.5).retry_after_s == 0.5
    assert refuse(1, "queue full", 0.0).retry_after_s == 0.001
    assert refuse(1, "too many rows", 0.5).retry_after_s is None


def test_the_bounds_of_the_model_a_lane_and_a_tenant_are_told_apart() -> None:
    lanes = (Lane(name="a"), Lane(name="b", capacity=1))
    door = Door(Policy(queue_capacity=3, lanes=lanes, tenant_capacity=2))
    assert door.full(1, "", waiting=1, alike=1) == "lane full"
    assert door.full(0, "", waiting=1, alike=1) is None
    door.entered("x")
    assert door.full(0, "x", waiting=2, alike=1) is None
    door.entered("x")
    assert door.full(0, "x", waiting=2, alike=1) == "tenant full"
    assert door.full(0, "y", waiting=2, alike=1) is None
    assert door.full(0, "y", waiting=3, alike=1) == "queue full"
    door.left("x")
    assert door.full(0, "x", waiting=2, alike=1) is None


def test_tenants_that_left_are_forgotten() -> None:
    door = Door(Policy(tenant_capacity=1))
    for number in range(100):
        door.entered(str(number))
        door.left(str(number))
    assert not door._tenants


@pytest.mark.parametrize(
    ("rows", "max_batch", "deadline", "reason"),
    [(4, 4, 2.0, None), (5, 4, 2.0, "too many rows"), (5, 1, 2.0, None), (1, 4, 1.0, "late on arrival")],
)
def test_what_no_server_could_take_is_refused(rows: int, max_batch: int, deadline: float, reason: str | None) -> None:
    refusal = Door(Policy(max_batch=max_batch)).malformed(Arrived(1, rows), deadline, now=1.0)
    assert (refusal and refusal.reason) == reason
