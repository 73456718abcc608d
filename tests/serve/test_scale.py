from __future__ import annotations

import pytest

from hasten.serve.policy import Policy
from hasten.serve.scale import Scaler

POLICY = Policy(instances=1, min_instances=1, max_instances=4, idle_s=60.0, window_s=0.5)


def test_work_that_waits_starts_instances_in_one_window() -> None:
    assert Scaler(POLICY).target(0.5, 1, load=0.5, waiting_s=0.9) == 3


def test_load_that_comes_starts_instances_before_anything_waits() -> None:
    assert Scaler(POLICY).target(0.5, 1, load=1.5, waiting_s=0.0) == 2


def test_there_are_never_more_or_fewer_instances_than_allowed() -> None:
    scaler = Scaler(POLICY)
    assert scaler.target(0.5, 1, load=99.0, waiting_s=99.0) == 4
    assert Scaler(POLICY).target(0.5, 1, load=0.0, waiting_s=0.0) == 1


def test_instances_go_one_by_one_after_a_long_rest_each() -> None:
    scaler, instances, went = Scaler(POLICY), 4, list[float]()
    for number in range(1, 500):
        at = number * 0.5
        target = scaler.target(at, instances, load=0.1, waiting_s=0.0)
        if target < instances:
            went.append(at)
        instances = target
    assert instances == 1
    assert went == pytest.approx([60.5, 120.5, 180.5])


def test_one_busy_window_in_the_time_of_rest_keeps_the_instances() -> None:
    scaler = Scaler(POLICY)
    targets = [scaler.target(n * 0.5, 3, load=2.0 if n % 100 == 0 else 0.1, waiting_s=0.0) for n in range(400)]
    assert set(targets) == {3}
