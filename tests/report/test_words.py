"""What the page says: the verdict, fates and reasons in words, and what to type."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hasten.errors import StorageError
from hasten.report import write_report
from hasten.report.facts import commands, shares
from hasten.report.page import page_of
from hasten.report.words import plainly
from hasten.spec.evidence import Record


def test_the_accepted_verdict_is_one_plain_sentence_with_intervals_and_samples(accepted: Record) -> None:
    hero = page_of(accepted, "ppocr-rec").hero
    assert hero.headline == "ppocr-rec runs 2.21× faster"
    assert "exact match changed by −0.1 points (−0.5 to +0.3), shown on 1,560 held-out samples" in hero.lead


def test_infeasible_names_the_objective_that_binds_and_offers_no_bundle(infeasible: Record) -> None:
    hero = page_of(infeasible, "m").hero
    assert hero.headline == "Infeasible: nothing reaches p99 latency ≤ 3 ms"
    assert any("Closest to the bound of 3 ms" in detail for detail in hero.details)
    assert [command.text for command in commands(infeasible)] == [infeasible.command]


def test_the_claims_are_picked_then_steps_then_the_reference_once(accepted: Record) -> None:
    assert [step.role for step in page_of(accepted, "m").steps] == ["picked", "step", "reference"]


def test_each_candidate_says_what_became_of_it(accepted: Record) -> None:
    page = page_of(accepted, "m")
    fates = {item.name: item.outcome for item in (*page.tried, *(i for group in page.untried for i in group.members))}
    assert fates["onnxruntime int8"] == "refused"
    assert fates["onnxruntime f16"] == "could not run"
    assert fates["onnxruntime f32, 1 thread"] == "not taken"
    assert fates["openvino bf16, 2 threads"] == "picked"


def test_tiles_fill_two_rows_and_say_how_accuracy_changed(accepted: Record, kept: Record) -> None:
    tiles = {tile.label: tile.text for tile in page_of(accepted, "m").tiles}
    assert len(tiles) == len(page_of(kept, "m").tiles) == 8
    assert tiles["exact match, change"].value == "−0.1 points"
    assert {"p50 latency", "p95 latency", "p99 latency", "cost per million predictions"} <= set(tiles)


def test_reasons_speak_words_and_leave_names_alone() -> None:
    assert plainly("latency_p99_ms is 21 (20 to 22).") == "P99 latency is 21 (20 to 22)."
    assert plainly("openvino-bf16-t2 does the same job better.") == "openvino-bf16-t2 does the same job better."


def test_the_bundle_to_verify_and_serve_is_the_one_of_the_command(accepted: Record) -> None:
    texts = [command.text for command in commands(accepted)]
    assert texts[1:] == ["hasten verify ppocr.bundle", "hasten serve ppocr.bundle"]
    hostile = msgspec.structs.replace(accepted, command="hasten optimize m --out '$(rm -rf x); y'")
    assert commands(hostile)[1].text == "hasten verify '$(rm -rf x); y'"


def test_absent_split_sizes_are_left_out(accepted: Record) -> None:
    assert [part.name for part in shares(accepted)] == ["calibration", "tuning", "holdout"]
    assert shares(msgspec.structs.replace(accepted, data={})) == ()


def test_a_failed_write_leaves_no_half_page_behind(accepted: Record, tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(StorageError):
        write_report(accepted, tmp_path / "report.html", title="m")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_reasons_have_minus_signs_and_identifiers_keep_their_hyphens() -> None:
    assert plainly("drops by -0.00 points (-3.47 to 3.47), openvino-bf16-2t, 2026-11-26, -r") == (
        "drops by 0.00 points (−3.47 to 3.47), openvino-bf16-2t, 2026-11-26, -r"
    )
