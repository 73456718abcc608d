"""Lessons outlive a run, and a broken history costs nothing but its lessons."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hasten.engine.host import environment
from hasten.optimize import history as module
from hasten.optimize.forecast import Lesson
from hasten.optimize.history import History

LESSON = Lesson(traits=("", "engine=openvino"), techniques=(), precision="f32", log_gain=0.5, spread=0.1, safe=True)


def test_what_one_run_learned_the_next_one_knows_with_the_name_of_its_model(tmp_path: Path) -> None:
    History(tmp_path / "h.sqlite").keep("abc", [LESSON])
    assert History(tmp_path / "h.sqlite").lessons() == [msgspec.structs.replace(LESSON, model="abc")]


def test_lessons_of_earlier_runs_are_not_kept_twice(tmp_path: Path) -> None:
    history = History(tmp_path / "h.sqlite")
    history.keep("abc", [LESSON])
    history.keep("abc", history.lessons())
    assert len(history.lessons()) == 1


def test_another_machine_learns_nothing_from_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    History(tmp_path / "h.sqlite").keep("abc", [LESSON])
    other = msgspec.structs.replace(environment(), processor="another one")
    monkeypatch.setattr(module, "environment", lambda: other)
    assert History(tmp_path / "h.sqlite").lessons() == []


def test_only_the_newest_lessons_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 2)
    history = History(tmp_path / "h.sqlite")
    for number in range(4):
        history.keep("abc", [msgspec.structs.replace(LESSON, seconds=float(number))])
    assert [lesson.seconds for lesson in history.lessons()] == [2.0, 3.0]


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough to be taken for one" * 40])
def test_a_damaged_history_is_an_empty_one(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "h.sqlite"
    file.write_bytes(content)
    history = History(file)
    assert history.lessons() == []
    history.keep("abc", [LESSON])


def test_a_folder_that_cannot_be_made_costs_only_the_lessons(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    history = History(tmp_path / "file" / "h.sqlite")
    history.keep("abc", [LESSON])
    assert history.lessons() == []


def test_without_a_file_nothing_is_kept() -> None:
    History(None).keep("abc", [LESSON])
    assert History(None).lessons() == []
