from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.serve.breaker import Breaker, State

# What happens, when, and what must come of it: the pause of a crash, and the state.
Row = tuple[str, float, float | None, State]
FIVE: list[Row] = [
    ("crash", 0.0, 0.0, "closed"),
    ("crash", 1.0, 0.2, "closed"),
    ("crash", 2.0, 0.4, "closed"),
    ("crash", 3.0, 0.8, "closed"),
    ("crash", 4.0, 10.0, "open"),
]
STORIES: dict[str, list[Row]] = {
    "one crash is started anew at once": [("crash", 5.0, 0.0, "closed"), ("answered", 6.0, None, "closed")],
    "the fifth crash in a minute opens it": FIVE,
    "the fifth crash in more than a minute does not": [*FIVE[:4], ("crash", 60.0, 0.8, "closed")],
    "a crash after a quiet minute counts from the start": [*FIVE[:4], ("crash", 64.0, 0.0, "closed")],
    "an answer after the pause closes it": [
        *FIVE,
        ("waited", 14.0, None, "half-open"),
        ("answered", 15.0, None, "closed"),
    ],
    "an answer of old does not close what is open": [*FIVE, ("answered", 4.5, None, "open")],
    "each failed try doubles the pause": [
        *FIVE,
        ("waited", 14.0, None, "half-open"),
        ("crash", 15.0, 20.0, "open"),
        ("waited", 35.0, None, "half-open"),
        ("crash", 36.0, 40.0, "open"),
        ("waited", 76.0, None, "half-open"),
        ("crash", 77.0, 80.0, "open"),
        ("waited", 157.0, None, "half-open"),
        ("crash", 158.0, 120.0, "open"),
        ("waited", 278.0, None, "half-open"),
        ("crash", 279.0, 120.0, "open"),
    ],
    "a crash soon after it closed opens it again": [
        *FIVE,
        ("waited", 14.0, None, "half-open"),
        ("answered", 15.0, None, "closed"),
        ("crash", 16.0, 20.0, "open"),
    ],
    "a quiet minute after it closed makes pauses short again": [
        *FIVE,
        ("waited", 14.0, None, "half-open"),
        ("answered", 15.0, None, "closed"),
        *[(what, at + 100.0, pause, state) for what, at, pause, state in FIVE],
    ],
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_the_breaker_follows_its_table(story: list[Row]) -> None:
    breaker = Breaker()
    for happening, at, pause, state in story:
        assert (breaker.crashed(at) if happening == "crash" else getattr(breaker, happening)()) == (
            pytest.approx(pause) if pause is not None else None
        )
        assert breaker.state == state


@given(st.lists(st.floats(0.0, 3.0), max_size=200))
def test_an_engine_that_always_crashes_is_started_seldom(takes: list[float]) -> None:
    now, starts = 0.0, []
    breaker = Breaker()
    for seconds in takes:
        now += seconds
        now += breaker.crashed(now)
        breaker.waited()
        starts.append(now)
    for start in starts:
        assert sum(start <= other < start + 60.0 for other in starts) <= 9
