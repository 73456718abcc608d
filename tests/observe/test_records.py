from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.observe.records import as_line, of_event, of_logging
from hasten.spec.event import Changed, Ran, Refused, Served, WorkerChanged


def served(**fields: Any) -> Served:
    return Served(
        **{"model": "tiny", "variant": "reference", "batch": 2, "queue_s": 0.001, "engine_s": 0.002, **fields}
    )


def logged(message: str, *words: object, **fields: Any) -> logging.LogRecord:
    return logging.getLogger("hasten.test").makeRecord(
        "hasten.test", logging.WARNING, __file__, 1, message, words, fields.pop("exc_info", None), extra=fields or None
    )


@given(st.dictionaries(st.text(), st.text()))
def test_whatever_is_in_it_a_record_is_one_line_of_printable_ascii_that_reads_back(record: dict[str, str]) -> None:
    line = as_line(record, now=0)
    assert line.endswith(b"\n")
    assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    assert {**json.loads(line), "time": ""} == {"time": "", **record, **({"time": ""} if "time" in record else {})}


@pytest.mark.parametrize(
    "attack",
    [
        'x\n{"level":"info","event":"answered"}',
        "x\r\nlevel=info",
        "\x1b[2J\x1b[1;31mroot#",
        "\x9b31m",
        "\u2028\u2029\u202egnp.exe",
        "\x00\x7f\x08",
        '"}{"a":"',
        "\ud800",
    ],
)
def test_no_name_forges_a_record_or_moves_a_cursor(attack: str) -> None:
    event = Refused(model=attack, code="internal", message=attack, request_id=attack)
    record = of_event(event)
    assert record is not None
    line = as_line(record, now=0)
    assert line.count(b"\n") == 1
    assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    assert json.loads(line)["model"] == attack


def test_times_are_of_the_whole_world() -> None:
    assert json.loads(as_line({}, now=1.5))["time"] == "1970-01-01T00:00:01.500000Z"


def test_single_requests_are_recorded_only_on_demand() -> None:
    assert of_event(served()) is None
    assert of_event(Refused(model="tiny", code="overloaded")) is None
    record = of_event(served(request_id="abc", closed="full"), requests=True)
    assert record is not None
    assert (record["event"], record["request_id"], record["batch"], record["queue_ms"]) == ("answered", "abc", 2, 1.0)


def test_a_bug_of_ours_is_always_recorded() -> None:
    record = of_event(Refused(model="tiny", code="internal", message="log says more under abc"))
    assert record is not None
    assert record["level"] == "error"


@pytest.mark.parametrize(("state", "level"), [("started", "info"), ("died", "warning"), ("lost", "warning")])
def test_workers_that_go_are_warnings(state: Any, level: str) -> None:
    record = of_event(WorkerChanged(model="tiny", variant="v", instance=1, state=state))
    assert record is not None
    assert (record["level"], record["event"]) == (level, f"worker {state}")


def test_batches_are_for_metrics_and_changes_for_the_audit() -> None:
    assert of_event(Ran(model="m", variant="v", requests=1, rows=1, seconds=1), requests=True) is None
    assert of_event(Changed(model="m", what="load", status=200), requests=True) is None


def test_what_a_module_logs_becomes_a_record_with_its_traceback_on_the_same_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = of_logging(logged("failed: %s", "x\ny", exc_info=sys.exc_info()))
    line = as_line(record, now=0)
    assert line.count(b"\n") == 1
    read = json.loads(line)
    assert (read["level"], read["message"]) == ("warning", "failed: x\ny")
    assert "ValueError: two\nlines" in read["traceback"]


def test_fields_stand_in_for_the_message() -> None:
    record = of_logging(logged("ignored", fields={"event": "load", "model": "tiny"}))
    assert record == {"level": "warning", "event": "load", "model": "tiny", "logger": "hasten.test"}


def test_long_texts_are_cut() -> None:
    assert len(as_line({"message": "x" * 10**6}, now=0)) < 2000
