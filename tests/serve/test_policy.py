from __future__ import annotations

from typing import Any

import pytest

from hasten.errors import UsageError
from hasten.serve.policy import Lane, Policy, Rung


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Lane(weight=0.0), "weight 0"),
        (lambda: Lane(min_share=1.0), "minimum share of 1"),
        (lambda: Lane(deadline_s=0.0), "deadline_s 0"),
        (lambda: Lane(max_age_s=-1.0), "max_age_s -1"),
        (lambda: Policy(lanes=(Lane(), Lane())), "names of their own"),
        (lambda: Policy(lanes=()), "names of their own"),
        (lambda: Policy(lanes=(Lane(name="a", min_share=0.5), Lane(name="b", min_share=0.5))), "add up to 1"),
        (lambda: Policy(ladder=()), "no variant"),
        (lambda: Policy(lanes=(Lane(accuracy_floor=0.9),), ladder=(Rung(variant="v", accuracy=0.8),)), "0.9"),
        (lambda: Policy(instances=3, max_instances=2), "not between"),
        (lambda: Policy(instances=2, speeds=(1.0,)), "1 speeds"),
    ],
)
def test_a_policy_that_makes_no_sense_fails_when_it_is_made(make: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


def test_a_request_that_names_no_lane_is_of_the_first() -> None:
    policy = Policy(lanes=(Lane(name="critical"), Lane(name="batch")))
    assert [policy.lane_numbers.get(name) for name in ("", "batch", "other")] == [0, 1, None]


def test_without_bounds_on_instances_there_is_no_scaling() -> None:
    assert Policy(instances=2).scale == (2, 2)
    assert Policy(instances=2, min_instances=1, max_instances=4).scale == (1, 4)
