"""A log that is read while it grows."""

from __future__ import annotations

from pathlib import Path

from hasten.observe.follow import Follower

LINE = b'{"event":"answered","request_id":"%d"}\n'


def test_each_record_is_read_once_and_a_line_that_is_not_complete_waits(tmp_path: Path) -> None:
    path = tmp_path / "log"
    follower = Follower(path)
    assert follower.new() == []
    path.write_bytes(LINE % 0 + (LINE % 1)[:10])
    assert [record["request_id"] for record in follower.new()] == ["0"]
    path.write_bytes(LINE % 0 + LINE % 1)
    assert [record["request_id"] for record in follower.new()] == ["1"]
    assert follower.new() == []


def test_only_answered_requests_are_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"event":"engine loaded"}\n' + LINE % 0 + b'{"event":"refused"}\n' + LINE % 1)
    assert [record["request_id"] for record in Follower(path).answered(2, 0.0)] == ["0", "1"]


def test_what_does_not_come_is_not_waited_for_longer_than_said(tmp_path: Path) -> None:
    assert Follower(tmp_path / "none").answered(1, 0.0) == []
