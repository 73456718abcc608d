"""The tables that states move by, and the page that is drawn from them."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path

import pytest

from hasten.serve.ladder import LADDER
from hasten.serve.outcomes import REQUEST, Outcomes
from hasten.serve.roster import INSTANCE

DOCS = Path(__file__).parents[2] / "docs"


def test_the_diagrams_in_the_docs_are_those_of_the_tables() -> None:
    page = runpy.run_path(str(DOCS / "make_scheduling.py"))["page"]
    assert (DOCS / "scheduling.md").read_text() == page(), "run make docs"


@pytest.mark.parametrize(
    ("table", "first"), [(REQUEST, "arriving"), (LADDER, "first variant"), (INSTANCE, "off")], ids=["r", "l", "i"]
)
def test_every_state_is_reached_from_the_first(table: Mapping[tuple[str, str], str], first: str) -> None:
    reached, news = {first}, True
    while news:
        found = {after for (before, _), after in table.items() if before in reached} - reached
        news = bool(found)
        reached |= found
    assert reached == {state for state, _ in table} | set(table.values())


def test_a_request_that_moves_is_counted_once() -> None:
    outcomes = Outcomes(1)
    outcomes.move(0, "arriving", "admit")
    outcomes.move(0, "waiting", "dispatch")
    outcomes.move(0, "running", "finish")
    outcomes.refuse(0, "arriving", "queue full")
    outcomes.refuse(-1, "arriving", "unknown lane")
    assert outcomes.states == {(0, "finished"): 1, (0, "refused"): 1, (-1, "refused"): 1}
    assert outcomes.refusals == {(0, "queue full"): 1, (-1, "unknown lane"): 1}
    with pytest.raises(KeyError):
        outcomes.move(0, "running", "admit")
