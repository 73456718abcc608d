"""The page of techniques: every technique has its row, and what a run does not measure it leaves alone."""

from __future__ import annotations

from hasten.transform.base import transforms
from techniques import NOT_RUN, PAGE, Cell, Row, merged, page, rows_of


def refused(technique: str, model: str) -> Cell:
    return Cell(technique=technique, model=model, engine="onnxruntime", reason="no | none")


def test_every_technique_has_a_row() -> None:
    assert [row.technique for row in rows_of(PAGE.read_text())] == transforms.names()


def test_a_page_is_written_again_as_it_was_read() -> None:
    text = PAGE.read_text()
    assert page(rows_of(text)) == text


def test_new_cells_take_their_place_among_those_that_are_kept() -> None:
    kept = [Row("fold", "old", {"magika": "1", "minilm": "2"}), Row("fuse", "old", {"magika": "3", "minilm": "4"})]
    rows = merged(kept, [refused("slim", "magika"), refused("fuse", "minilm")], "old")
    text = {"magika": r"no \| none"}
    assert [row.technique for row in rows] == ["fold", "slim", "fuse"]
    assert [row.texts for row in rows] == [kept[0].texts, text, {"magika": "3", "minilm": r"no \| none"}]
    assert rows_of(page(rows))[1].texts == {**text, "minilm": NOT_RUN}


def test_no_row_mixes_machines() -> None:
    kept = [Row("fold", "old", {"magika": "1", "minilm": "2"}), Row("fuse", "old", {"magika": "3"})]
    rows = rows_of(page(merged(kept, [refused("fold", "minilm")], "new")))
    assert [(row.machine, row.texts["magika"]) for row in rows] == [("new", NOT_RUN), ("old", "3")]
