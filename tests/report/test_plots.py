"""The drawings show every candidate, follow the page's colours, and no name can break them."""

from __future__ import annotations

import re

import msgspec

from hasten.report import render
from hasten.report.labels import Box, place
from hasten.report.page import page_of
from hasten.report.plots import speed_accuracy_svg
from hasten.spec.evidence import Record
from hasten.spec.measurement import unmeasured


def with_engine(record: Record, engine: str) -> Record:
    """The record with the picked candidate's engine renamed on tuning data."""
    first, second, *rest = record.tuning
    target = msgspec.structs.replace(second.variant.target, engine=engine)
    renamed = msgspec.structs.replace(second, variant=msgspec.structs.replace(second.variant, target=target))
    return msgspec.structs.replace(record, tuning=(first, renamed, *rest))


def drawn(record: Record) -> str:
    chart = page_of(record, "m").chart
    assert chart is not None
    return speed_accuracy_svg(chart, name="p", width=940, height=460)


def test_every_measured_candidate_is_a_point_and_the_loser_is_not_on_the_front(accepted: Record) -> None:
    chart = page_of(accepted, "m").chart
    assert chart is not None
    assert len(chart.points) == len(accepted.tuning)
    assert not any(point.front for point in chart.points if point.kind == "refused")
    assert [point.kind for point in chart.points].count("picked") == 1


def test_a_name_that_looks_like_a_placeholder_or_mathematics_is_drawn_as_it_is(accepted: Record) -> None:
    assert "hasten-text-99. bf16" in drawn(with_engine(accepted, "hasten-text-99."))
    assert "$x^2$ bf16" in drawn(with_engine(accepted, "$x^2$"))
    assert "<b>" not in drawn(with_engine(accepted, "<b>"))


def test_colours_come_from_the_page_and_ids_are_unique_on_it(accepted: Record) -> None:
    html = render(accepted, title="m")
    svgs = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert "var(--picked)" in svgs
    assert not re.search(r"#0102\d\d", svgs)
    ids = re.findall(r'\bid="([^"]+)"', svgs)
    assert len(ids) == len(set(ids))
    assert svgs.count("aria-label=") == svgs.count("<svg")


def test_a_candidate_without_a_figure_is_named_as_not_drawn(accepted: Record) -> None:
    first, second, *rest = accepted.tuning
    blank = msgspec.structs.replace(second.measurement, speedup=unmeasured("the clock stood still"))
    blind = msgspec.structs.replace(second, measurement=blank)
    page = page_of(msgspec.structs.replace(accepted, tuning=(first, blind, *rest)), "m")
    assert page.undrawn == ("openvino bf16, 2 threads",)


def test_lower_is_better_turns_the_axis_and_says_so(error_rate: Record) -> None:
    chart = page_of(error_rate, "m").chart
    assert chart is not None
    assert "up is better" in chart.y_title


def test_latency_is_drawn_for_each_claim_once(accepted: Record) -> None:
    bars = page_of(accepted, "m").latency
    assert bars is not None
    assert [row.kind for row in bars.rows] == ["picked", "ladder", "reference"]
    assert bars.bounds == (("p99 bound 20 ms", 20.0),)


def test_placed_names_never_overlap() -> None:
    frame = Box(left=0, bottom=0, right=300, top=200)
    points = [(150.0, 100.0 + step) for step in range(6)]
    labels = [x for x in place(points, [60.0] * 6, height=15, frame=frame, taken=[], avoid=[]) if x]
    assert len(labels) >= 4
    assert not any(a.box.overlaps(b.box) for i, a in enumerate(labels) for b in labels[i + 1 :])
