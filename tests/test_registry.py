import sys
from importlib.metadata import EntryPoint

import pytest

from hasten.errors import MissingError, UsageError
from hasten.registry import Entry, Registry


def registry(*entries: Entry) -> Registry[object]:
    return Registry("engine", entries)


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(UsageError, match="Choose one of: a, b"):
        registry(Entry(name="a", target="x:y"), Entry(name="b", target="x:y")).get("c")


def test_a_missing_package_is_told_what_to_type() -> None:
    entry = Entry(name="tpu", target="nowhere:T", requires="no_such_package", extra="tpu")
    with pytest.raises(MissingError, match=r"pip install 'hasten\[tpu\]'"):
        registry(entry).get("tpu")


def test_listing_imports_nothing() -> None:
    found = registry(Entry(name="x", target="xml.dom.expatbuilder:parse"))
    assert "x" in found.names()
    assert "xml.dom.expatbuilder" not in sys.modules


def test_hidden_names_are_not_offered_but_can_be_had() -> None:
    found = registry(Entry(name="fake", target="types:SimpleNamespace", hidden=True))
    assert "fake" not in found.names()
    assert found.get("fake") is found.get("fake")


def test_an_entry_point_adds_a_name_and_cannot_replace_a_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint(n, "types:SimpleNamespace", "hasten.engine") for n in ("mine", "builtin")]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points if group == "hasten.engine" else [])
    found = registry(Entry(name="builtin", target="original:X"))
    assert found.names() == ["builtin", "mine"]
    assert found.entry("builtin").target == "original:X"
