"""The claim class by class: what changed first, small classes called small, chance named, the rest folded."""

from __future__ import annotations

import msgspec
import pytest

from hasten.report import render
from hasten.report.by_class import ByClass, by_class
from hasten.spec.evidence import Record


@pytest.fixture
def picked(full: Record) -> ByClass:
    return by_class(full)[0]


def test_the_picked_variant_stands_first(full: Record) -> None:
    assert [item.picked for item in by_class(full)] == [True, False]


def test_classes_that_changed_are_shown_and_the_others_folded(picked: ByClass) -> None:
    assert [(row.name, row.state) for row in picked.rows] == [("shirt", "lost"), ("coat", ""), ("bag", "")]
    assert len(picked.more) == 20
    assert picked.more_label == "20 more classes; 207 that changed less are in no record"


def test_at_most_twelve_are_shown(full: Record) -> None:
    found = full.classes[1]
    lost = tuple(msgspec.structs.replace(found.changes[0], name=str(n)) for n in range(30))
    many = msgspec.structs.replace(full, classes=(msgspec.structs.replace(found, changes=lost),))
    [item] = by_class(many)
    assert (len(item.rows), len(item.more)) == (12, 18)


def test_each_change_has_its_interval_and_a_small_class_a_reason(picked: ByClass) -> None:
    shirt, _, bag = picked.rows
    assert (shirt.change.value, shirt.change.interval) == ("−20.0 points", "−25.0 to −15.0")
    assert (bag.change.measured, bag.change.note) == (False, "4 samples: too few to say anything")


def test_chance_and_the_size_of_classes_are_named(picked: ByClass) -> None:
    assert picked.notes == (
        "Accuracy changed in 3 of 230 classes.",
        "In 1 of them the interval excludes zero; each interval is for its class alone, and one in twenty does so by "
        "chance.",
        "Even where no answer changed, a class of 40 samples leaves −8.8 to +8.8 points open.",
        "1 class has too few samples to say anything.",
    )


def test_where_no_class_changed_that_is_said_and_all_are_folded(full: Record) -> None:
    same = by_class(full)[1]
    assert same.rows == ()
    assert same.notes[0] == "Accuracy changed in none of 20 classes."
    assert same.more_label == "20 classes"


def test_data_without_classes_leaves_the_table_out(full: Record) -> None:
    assert "by class" not in render(msgspec.structs.replace(full, classes=()), title="m")


def test_the_name_of_a_class_is_text_and_never_markup(full: Record) -> None:
    found = full.classes[1]
    hostile = msgspec.structs.replace(found.changes[0], name="<img src=x onerror=alert(1)>\u202e")
    record = msgspec.structs.replace(full, classes=(msgspec.structs.replace(found, changes=(hostile,)),), shown=())
    html = render(record, title="m")
    assert "<img" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;\ufffd" in html
