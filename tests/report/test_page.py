"""The page says what the record says, verdict first, and nothing in it can do anything."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from hasten.errors import StorageError
from hasten.report import render, write_report
from hasten.report.page import page_of
from hasten.spec.evidence import Record, Rejection
from hasten.spec.measurement import Figure, Measurement

HOSTILE = '<img src=x onerror=alert(1)>$\\frac{1}{2}$"javascript:alert(1)'


def fig(value: float) -> Figure:
    return Figure(value=value, low=value * 0.9, high=value * 1.1, n=30)


class Tree(HTMLParser):
    """Checks that every element is closed by its own tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL))


def test_the_verdict_comes_before_everything_else(accepted: Record) -> None:
    body = text_of(render(accepted, title="ppocr-rec").split("<body>")[1])
    assert body.index("faster") < body.index("95 % interval") < body.index("What was tried")


def test_every_candidate_and_every_reason_is_on_the_page(accepted: Record) -> None:
    page = page_of(accepted, "m")
    candidates = [*page.tried, *(item for group in page.untried for item in group.members)]
    tried = {item.how for item in candidates}
    for rejection in accepted.rejected:
        assert any(str(rejection.variant.target) in how for how in tried), rejection.variant.id
    reasons = " ".join(item.reason for item in candidates)
    assert all(rejection.reason in reasons for rejection in accepted.rejected)


def test_the_fast_candidate_that_answers_wrong_is_told_prominently(accepted: Record) -> None:
    html = render(accepted, title="m")
    assert "candidate was refused" in html
    assert html.index("candidate was refused") < html.index("The claim, on held-out data")
    assert "<mark>" in html


def test_what_was_not_measured_says_why_and_is_never_zero(accepted: Record) -> None:
    [row] = [row for row in page_of(accepted, "m").rows if row.label == "energy per prediction"]
    assert {cell.value for cell in row.cells} == {"not measured"}
    assert "no energy counter" in row.cells[0].note


def test_keeping_the_reference_and_infeasible_objectives_read_as_such(kept: Record, infeasible: Record) -> None:
    assert page_of(kept, "m").hero.headline == "Keep the reference"
    assert page_of(infeasible, "m").hero.headline.startswith("Infeasible")
    for record in (kept, infeasible):
        assert "<svg" in render(record, title="m")


def test_for_an_error_rate_falling_is_good(error_rate: Record) -> None:
    page = page_of(error_rate, "m")
    assert page.chart is not None
    assert page.chart.higher_is_better is False
    assert "rise ≤" in page.chart.bound_text


def test_hostile_names_are_text_in_the_page_and_in_the_drawing(accepted: Record) -> None:
    model = {**accepted.model, "name": HOSTILE}
    stories = tuple(msgspec.structs.replace(s, answer=HOSTILE, label=HOSTILE) for s in accepted.stories)
    record = msgspec.structs.replace(accepted, model=model, stories=stories, command=HOSTILE, summary=HOSTILE)
    html = render(record, title=HOSTILE)
    assert "<img" not in html
    assert "onerror=alert(1)&gt;" in html
    assert not re.search(r"(?:href|src)=[\"']?javascript", html)


def test_the_page_names_no_remote_address_and_runs_no_script(accepted: Record) -> None:
    html = render(accepted, title="m")
    assert not re.search(r"https?://|//[a-z]+\.|<script|<link|@import|url\((?!#)", html)


def test_equal_records_give_equal_pages(accepted: Record) -> None:
    assert render(accepted, title="m") == render(accepted, title="m")


def test_a_record_without_any_measured_candidate_still_renders(kept: Record) -> None:
    bare = msgspec.structs.replace(kept, tuning=(), stories=(), model={}, data={}, command="")
    assert "Keep the reference" in render(bare, title="m")


def test_writing_is_all_or_nothing(accepted: Record, tmp_path: Path) -> None:
    write_report(accepted, tmp_path / "deep" / "report.html", title="m")
    assert (tmp_path / "deep" / "report.html").read_text().startswith("<!doctype html>")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        write_report(accepted, tmp_path / "file" / "report.html", title="m")


def test_the_page_with_everything_on_it_is_well_formed(full: Record) -> None:
    Tree(render(full, title="m"))


def test_candidates_that_share_their_fate_are_told_together(accepted: Record) -> None:
    late = tuple(
        Rejection(
            variant=msgspec.structs.replace(accepted.rejected[2].variant, id=f"late-{n}"), stage="budget", reason="r"
        )
        for n in range(5)
    )
    page = page_of(msgspec.structs.replace(accepted, rejected=(*accepted.rejected, *late)), "m")
    [group] = [group for group in page.untried if group.outcome == "not tried, time was up"]
    assert len(group.members) == 5


def test_what_was_stopped_after_a_glance_shows_the_speed_that_it_had(accepted: Record) -> None:
    glanced = msgspec.structs.replace(
        accepted.rejected[0],
        variant=msgspec.structs.replace(accepted.rejected[0].variant, id="glanced"),
        evidence=msgspec.structs.replace(
            accepted.tuning[1],
            variant=msgspec.structs.replace(accepted.rejected[0].variant, id="glanced"),
            measurement=Measurement(split="tuning", metric=accepted.tuning[1].measurement.metric, speedup=fig(0.5)),
        ),
    )
    page = page_of(msgspec.structs.replace(accepted, rejected=(*accepted.rejected, glanced)), "m")
    [row] = [item for item in page.tried if item.speed.value == "0.50×"]
    assert row.accuracy.value == "–"
