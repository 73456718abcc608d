"""Loads as people write them: read as meant, or refused with the ways to write one."""

from __future__ import annotations

import math

import pytest

from hasten.errors import UsageError
from hasten.measure.load import Load, length_s, parse_load


@pytest.mark.parametrize(
    ("text", "load"),
    [
        ("closed:8", Load(kind="closed", value=8)),
        ("poisson:12.5", Load(kind="poisson", value=12.5)),
        ("gamma:50:4", Load(kind="gamma", value=50, cv=4)),
        ("step:10,0,40:2.5", Load(kind="step", rates=(10, 0, 40), step_s=2.5)),
        ("trace:a:b.txt", Load(kind="trace", path="a:b.txt")),
    ],
)
def test_each_kind_is_read(text: str, load: Load) -> None:
    assert parse_load(text) == load


@pytest.mark.parametrize(
    "text",
    ["", "closed:0", "closed:x", "closed:1.5", "closed:99999", "poisson:-1", "poisson:", "poisson:nan", "poisson:inf",
     "gamma:10", "gamma:10:0", "gamma:10:nan", "gamma:0:1", "gamma:1:2:3", "step:10", "step:0:5", "step:,:5",
     "step:10:0", "step:10:inf", "step:-1,5:3", "trace:", "burst:3"],
)  # fmt: skip
def test_what_is_no_load_says_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageError, match=r"closed:N.*gamma:RPS:CV.*step:RPS,RPS"):
        parse_load(text)


def test_steps_and_traces_have_a_length_of_their_own_that_a_duration_only_cuts() -> None:
    step = parse_load("step:10,20:5")
    assert length_s(step, None) == 10
    assert (length_s(step, 4), length_s(step, 60)) == (4, 10)
    assert length_s(parse_load("trace:t"), None) == math.inf
    assert length_s(parse_load("poisson:5"), None) == 10
