from __future__ import annotations

import pytest

from hasten.errors import RequestError
from hasten.serve.access import NOBODY, Caller
from hasten.serve.choice import LaneChoice
from hasten.serve.policy import Lane

LANES = (Lane(name="high", priority=1), Lane(name="usual", priority=2), Lane(name="other", priority=2))
SEVERAL = LaneChoice((*LANES, Lane(name="low", priority=4)), "usual")
SINGLE = LaneChoice((Lane(),), "default")
BOUND = Caller(tenant="acme", lane="usual")


@pytest.mark.parametrize(
    ("named", "priority", "caller", "lane"),
    [
        ("", 0, NOBODY, "usual"),
        ("", 0, Caller(tenant="acme", lane="low"), "low"),
        ("low", 0, NOBODY, "low"),
        ("", 1, NOBODY, "high"),
        ("", 2, NOBODY, "usual"),
        ("other", 1, NOBODY, "other"),
        ("low", 0, BOUND, "low"),
        ("other", 0, BOUND, "other"),
        ("", 4, BOUND, "low"),
    ],
)
def test_a_name_goes_before_a_priority_and_both_before_the_token(
    named: str, priority: int, caller: Caller, lane: str
) -> None:
    assert SEVERAL.of(named, priority, caller) == lane


@pytest.mark.parametrize(
    ("named", "priority", "caller", "code", "words"),
    [
        ("none", 0, NOBODY, "invalid", r"no lane 'none'\. It has: high \(priority 1\), usual"),
        ("", 3, NOBODY, "invalid", "no lane of priority 3"),
        ("high", 0, BOUND, "forbidden", "for the lane 'usual'; 'high' is more urgent"),
        ("", 1, BOUND, "forbidden", "more urgent"),
    ],
)
def test_what_is_not_there_or_not_allowed_is_refused(
    named: str, priority: int, caller: Caller, code: str, words: str
) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        SEVERAL.of(named, priority, caller)
    assert caught.value.code == code


def test_where_there_is_one_lane_a_priority_means_nothing_and_other_names_are_refused() -> None:
    assert [SINGLE.of("", priority, NOBODY) for priority in (0, 1, 7)] == ["default"] * 3
    assert SINGLE.of("default", 0, NOBODY) == "default"
    with pytest.raises(RequestError, match="no lane 'x"):
        SINGLE.of("x" * 1000, 0, NOBODY)
