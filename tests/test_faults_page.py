"""docs/faults.md names tests that exist, for every row that concerns the server."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from soaks.rows import ROWS

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs/faults.md").read_text()
LINES = dict(re.findall(r"^\| ([RA]\d+) \| (.*) \|$", PAGE, re.MULTILINE))
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))
# The list has no R7, R9 to R13 stand with the scheduler, and there is no A8 and no A14.
FAULTS = [*range(1, 7), 8, *range(14, 24), 28]
ATTACKS = [*(n for n in range(1, 21) if n not in (8, 14)), 38, 39, 40]


def test_every_row_has_a_test() -> None:
    assert list(LINES) == [*(f"R{n}" for n in FAULTS), *(f"A{n}" for n in ATTACKS)]
    assert all("::test_" in line for line in LINES.values())


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_every_test_that_is_named_is_there(file: str) -> None:
    tree = ast.parse((TESTS / file).read_text())
    there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {name for one, name in NAMED if one == file} <= there


def test_every_long_form_is_a_row_of_the_soak() -> None:
    assert set(re.findall(r"`(R\d+)` \|$", PAGE, re.MULTILINE)) == set(ROWS)
