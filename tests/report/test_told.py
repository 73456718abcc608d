"""Samples that changed: shown as pictures or words, bounded, and unable to do anything."""

from __future__ import annotations

import re
import struct

import msgspec
import pytest

from hasten.report import render
from hasten.report.told import told
from hasten.spec.evidence import Record, Shown, Story

INT8 = "onnxruntime-int8-t2"
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"


def addresses(html: str) -> list[str]:
    return re.findall(r'<img src="([^"]*)"', html)


def test_a_sample_is_shown_as_its_picture_or_in_its_words(full: Record) -> None:
    by_sample = {item.sample: item for item in told(full, INT8)}
    assert by_sample[17].picture.startswith("data:image/png;base64,iVBORw0KGgo")
    assert (by_sample[58].text, by_sample[58].picture) == ("Total: 1,204.50 EUR, on paper", "")
    assert (by_sample[211].text, by_sample[211].picture) == ("", "")


def test_the_page_shows_the_samples_of_the_picked_variant(full: Record) -> None:
    section = render(full, title="m").split("Samples whose answers changed most")[1].split("</section>")[0]
    assert len(addresses(section)) == 1
    assert section.count("<mark>shirt</mark>") == 2


def test_where_no_answer_of_the_picked_variant_changed_the_page_says_so(accepted: Record) -> None:
    assert "None of its answers to 480 tuning samples differs from the reference’s." in render(accepted, title="m")


@pytest.mark.parametrize("content", [SVG, b"", b"\x89PNG\r\n\x1a\n"], ids=["svg", "nothing", "cut off"])
def test_what_is_no_png_never_becomes_an_address(full: Record, content: bytes) -> None:
    record = msgspec.structs.replace(full, shown=(Shown(sample=17, picture=content),))
    assert addresses(render(record, title="m")) == []


def test_a_picture_of_too_many_pixels_is_not_opened(full: Record) -> None:
    real = full.shown[0].picture
    bomb = real[:16] + struct.pack(">II", 60_000, 60_000) + real[24:]
    record = msgspec.structs.replace(full, shown=(Shown(sample=17, picture=bomb),))
    assert addresses(render(record, title="m")) == []


def test_hostile_samples_and_answers_are_text(full: Record) -> None:
    bad = "</figcaption><img src=x onerror=alert(1)>\u202e\x00"
    stories = (Story(variant=full.picked, sample=1, label=bad, reference=bad, answer=bad + "!"),)
    html = render(msgspec.structs.replace(full, stories=stories, shown=(Shown(sample=1, text=bad),)), title="m")
    assert "<img" not in html
    assert "\x00" not in html
    assert "&lt;/figcaption&gt;&lt;img src=x onerror=alert(1)&gt;\ufffd\ufffd" in html


def test_the_page_stays_below_two_megabytes_however_many_pictures_there_are(full: Record) -> None:
    heavy = full.shown[0].picture + b"\0" * 30_000
    stories = tuple(
        Story(variant=variant, sample=sample, label="a", reference="a", answer="b")
        for variant in (full.picked, INT8, "openvino-int8-t2")
        for sample in range(60)
    )
    shown = tuple(Shown(sample=sample, picture=heavy) for sample in range(60))
    html = render(msgspec.structs.replace(full, stories=stories, shown=shown), title="m")
    assert addresses(html)
    assert len(html.encode()) < 2_000_000


@pytest.mark.parametrize(
    ("reference", "answer", "pieces"),
    [
        ("Invoice", "Invo1ce", [("Invo", False), ("1", True), ("ce", False)]),
        ("sneaker", "sandal", [("sandal", True)]),
        ("T-shirt", "shirt", [("shirt", True)]),
        ("0.1625", "0.1234", [("0.1234", True)]),
        ("anything", "", []),
    ],
    ids=["a letter", "another word", "a part of it", "a number", "nothing"],
)
def test_what_differs_in_an_answer_is_marked(
    full: Record, reference: str, answer: str, pieces: list[tuple[str, bool]]
) -> None:
    story = Story(variant="v", sample=1, label="", reference=reference, answer=answer)
    [item] = told(msgspec.structs.replace(full, stories=(story,)), "v")
    assert list(item.answer) == pieces
