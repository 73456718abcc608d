"""The page of a profile: self-contained, well-formed, honest about names and missing figures."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from tests.profile.profiles import operator, profile

from hasten.report import render_profile
from hasten.report.profile_page import profile_page
from hasten.spec.measurement import unmeasured
from hasten.spec.profile import Ceilings


class Tree(HTMLParser):
    """Checks that every element is closed by its own tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()


def test_the_page_is_well_formed_and_needs_nothing_else() -> None:
    text = render_profile(profile())
    Tree(text)
    assert not re.search(r"(src|href)=\"(?!#)", text)
    assert "<script" not in text and "@import" not in text


def test_a_reader_sees_times_bounds_remedies_and_what_has_none() -> None:
    text = render_profile(profile())
    for words in ("quantize_static, after raise_opset", "all 2", "None: nothing addresses it.", "A note.", "200 µs"):
        assert words in text
    assert "first + 2 more" in text and "first, bn, relu" in text


def test_a_name_from_a_model_is_text_and_never_markup() -> None:
    text = render_profile(profile(operator("<script>alert(1)</script>$x$", 10.0)))
    assert "<script>" not in text
    Tree(text)


def test_without_ceilings_there_is_no_roofline_and_the_page_says_so() -> None:
    import msgspec

    ceilings = Ceilings(threads=1, compute_gflop_per_s=unmeasured("it runs on GPU"), memory=())
    page = profile_page(msgspec.structs.replace(profile(), ceilings=ceilings))
    assert page.roof is None
    assert "No roofline" in page.roof_missing
    assert page.ceilings[0][1].note == "it runs on GPU"


def test_equal_profiles_give_equal_pages() -> None:
    assert render_profile(profile()) == render_profile(profile())


def test_most_operators_are_folded_and_none_is_lost() -> None:
    page = profile_page(profile(*(operator(f"op{n}", 300.0 - n, share=0.01) for n in range(60))))
    assert (len(page.rows), len(page.more)) == (24, 36)
    assert page.more_label == "36 more operators take 36.0 % together."


def test_folders_that_all_names_share_are_written_once() -> None:
    names = ("graph_of_everything/block/conv1", "graph_of_everything/block/conv2")
    page = profile_page(profile(*(operator(name, 10.0) for name in names), operator("Reorder", 5.0)))
    assert page.prefix == "graph_of_everything/block/"
    assert [row.label for row in page.rows] == ["…/conv1", "…/conv2", "Reorder"]


def test_little_work_is_told_in_small_units() -> None:
    sizes = (12, 8_000, 250_000_000)
    page = profile_page(profile(*(operator(f"n{size}", 9.0, flops=size, bytes_moved=None) for size in sizes)))
    assert [row.work for row in page.rows] == ["12 FLOP", "8 kFLOP", "250 MFLOP"]
