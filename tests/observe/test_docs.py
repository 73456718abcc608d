from __future__ import annotations

import re
import runpy
from pathlib import Path

from hasten.observe.families import FAMILIES, table

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_lists_the_metrics_of_the_code() -> None:
    page = runpy.run_path(str(DOCS / "make_observability.py"))["page"]
    text = (DOCS / "observability.md").read_text()
    assert text == page(), "run make docs"
    assert table() in text


def test_every_metric_that_the_page_names_exists() -> None:
    named = set(re.findall(r"hasten_\w+", (DOCS / "observability.md").read_text()))
    known = {family.shown for family in FAMILIES.values()} | {
        f"{family.name}_bucket" for family in FAMILIES.values() if family.kind == "histogram"
    }
    assert named <= known


def test_names_say_their_unit_as_prometheus_wants_it() -> None:
    units = ("seconds", "bytes", "requests", "rows")
    for family in FAMILIES.values():
        if family.kind == "histogram":
            assert family.name.endswith(units), family.name
        assert "milli" not in family.name
        assert not family.name.endswith("_total")
