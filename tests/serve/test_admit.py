from __future__ import annotations

import math

import pytest

from hasten.serve.admit import REASONS, Door, refuse
from hasten.serve.events import Arrived, Waiting
from hasten.serve.policy import Lane, Policy
from hasten.wire.base import STATUS


def waiting(id_: int, lane: int = 0, tenant: str = "", deadline: float = math.inf, limit: float = math.inf) -> Waiting:
    return Waiting(id_, 1, None, 0.0, deadline, limit, lane=lane, tenant=tenant)


def test_every_reason_has_a_code_of_the_protocol() -> None:
    assert {reason.code for reason in REASONS.values()} <= set(STATUS)


def test_who_may_come_back_is_told_when_and_never_at_once() -> None:
    assert refuse(1, "queue full", 0.5).retry_after_s == 0.5
    assert refuse(1, "queue full", 0.0).retry_after_s == 0.001
    assert refuse(1, "too many rows", 0.5).retry_after_s is None


def test_the_bounds_of_the_model_a_lane_and_a_tenant_are_told_apart() -> None:
    lanes = (Lane(name="a"), Lane(name="b", capacity=1))
    door = Door(Policy(queue_capacity=3, lanes=lanes, tenant_capacity=2))
    door.entered(waiting(1, lane=1))
    assert (door.full(1, ""), door.full(0, "")) == ("lane full", None)
    door.entered(waiting(2, tenant="x"))
    assert door.full(0, "x") is None
    door.left(waiting(1, lane=1))
    door.entered(waiting(3, tenant="x"))
    assert (door.full(0, "x"), door.full(0, "y"), door.full(1, "")) == ("tenant full", None, None)
    door.entered(waiting(4))
    assert door.full(0, "y") == "queue full"
    door.left(waiting(2, tenant="x"))
    assert door.full(0, "x") is None


def test_tenants_that_left_are_forgotten() -> None:
    door = Door(Policy(tenant_capacity=1))
    for number in range(100):
        door.entered(waiting(number, tenant=str(number)))
        door.left(waiting(number, tenant=str(number)))
    assert not door._tenants


@pytest.mark.parametrize(
    ("rows", "max_batch", "deadline", "reason"),
    [(4, 4, 2.0, None), (5, 4, 2.0, "too many rows"), (5, 1, 2.0, None), (1, 4, 1.0, "late on arrival")],
)
def test_what_no_server_could_take_is_refused(rows: int, max_batch: int, deadline: float, reason: str | None) -> None:
    refusal = Door(Policy(max_batch=max_batch)).malformed(Arrived(1, rows), deadline, now=1.0)
    assert (refusal and refusal.reason) == reason


def test_a_request_is_late_when_its_answer_is_or_when_it_would_wait_too_long() -> None:
    door = Door(Policy())
    assert not door.late(waiting(1, deadline=3.0), 1.0, wait_s=1.0, run_s=1.0)
    assert door.late(waiting(1, deadline=2.9), 1.0, wait_s=1.0, run_s=1.0)
    assert not door.late(waiting(1, limit=2.0), 1.0, wait_s=1.0, run_s=9.0)
    assert door.late(waiting(1, limit=2.0), 1.0, wait_s=1.1, run_s=0.0)
