from __future__ import annotations

import json
import logging
import os
import threading
import warnings
from pathlib import Path

import pytest

from hasten.errors import UsageError
from hasten.observe.log import Log, logging_to
from hasten.observe.writer import Writer
from hasten.spec.event import Refused, Served, WorkerChanged

SERVED = Served(model="tiny", variant="reference", batch=1, queue_s=0.0, engine_s=0.0, request_id="abc")


def test_lines_come_in_their_order_and_none_is_lost(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "log")
    lines = [b"%d\n" % number for number in range(1000)]
    for line in lines:
        writer.write(line)
    writer.close()
    assert (tmp_path / "log").read_bytes() == b"".join(lines)
    assert writer.lost() == {"slow": 0, "error": 0}


def test_what_is_there_already_is_kept(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"before\n")
    writer = Writer(tmp_path / "log")
    writer.write(b"after\n")
    writer.close()
    assert (tmp_path / "log").read_bytes() == b"before\nafter\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_is_counted_and_stops_nobody() -> None:
    writer = Writer(Path("/dev/full"))
    for _ in range(10):
        writer.write(b"line\n")
    writer.close()
    assert writer.lost() == {"slow": 0, "error": 10}


def test_a_record_that_a_full_disk_cut_off_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, failed = os.write, threading.Event()

    def full_after_three_bytes(file: int, data: memoryview) -> int:
        if failed.is_set():
            return write(file, data)
        if bytes(data[:1]) == b"c":
            return write(file, data[:3])
        failed.set()
        raise OSError(28, "No space left on device")

    writer = Writer(tmp_path / "log")
    monkeypatch.setattr("hasten.observe.writer.os.write", full_after_three_bytes)
    writer.write(b"cut off\n")
    assert failed.wait(20)
    writer.write(b"whole\n")
    writer.close()
    assert (tmp_path / "log").read_bytes() == b"cut\nwhole\n"
    assert writer.lost()["error"] == 1


def test_a_reader_that_stops_reading_costs_records_and_no_time(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, False)
    path = Path(f"/dev/fd/{writing}")
    if not path.exists():
        pytest.skip("needs /dev/fd")
    writer = Writer(path, capacity=10)
    os.close(writing)
    line = b"x" * 8191 + b"\n"
    for _ in range(100):
        writer.write(line)
    assert writer.lost()["slow"] > 0
    # The reader comes back, so that the thread can end.
    drain = threading.Thread(target=lambda: [None for _ in iter(lambda: os.read(reading, 65536), b"")])
    drain.start()
    writer.close(20)
    drain.join(20)
    os.close(reading)


def test_a_file_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "log")
    (tmp_path / "log").rename(tmp_path / "log.1")
    writer.write(b"line\n")
    writer.close()
    assert (tmp_path / "log").read_bytes() == b"line\n"
    assert (tmp_path / "log.1").read_bytes() == b""


def test_a_place_that_cannot_be_written_is_known_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--log FILE"):
        Writer(tmp_path / "no" / "such" / "folder")


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_log_holds_events_and_what_modules_log(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", requests=True)
    with logging_to(log):
        log(SERVED)
        logging.getLogger("hasten.serve").info("hello")
        logging.getLogger("another.library").warning("careful")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("of Python", stacklevel=1)
    assert [record["event"] for record in records(tmp_path / "log")] == ["answered", "log", "log", "log"]
    logging.getLogger("hasten.serve").info("nobody listens any more")
    assert len(records(tmp_path / "log")) == 4


def test_a_quiet_log_holds_warnings_and_the_audit(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", all_levels=False)
    with logging_to(log):
        log(SERVED)
        log(Refused(model="tiny", code="overloaded"))
        log(WorkerChanged(model="tiny", variant="v", instance=0, state="started"))
        log(WorkerChanged(model="tiny", variant="v", instance=0, state="died"))
        logging.getLogger("hasten.serve").info("hello")
        logging.getLogger("hasten.serve.audit").info("load", extra={"fields": {"event": "load"}})
    assert [record["event"] for record in records(tmp_path / "log")] == ["worker died", "load"]
