"""Traces that Perfetto opens: the rules of the Trace Event Format, held against what is written."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from tests.profile.profiles import profile

from hasten.profile.trace import trace_document


def written(measured: bool = True) -> dict[str, Any]:
    return json.loads(msgspec.json.encode(trace_document(profile(measured=measured))))


def slices(document: dict[str, Any], thread: int) -> list[dict[str, Any]]:
    return [event for event in document["traceEvents"] if event["ph"] == "X" and event["tid"] == thread]


def test_every_event_has_what_the_format_asks_for() -> None:
    document = written()
    assert document["displayTimeUnit"] in ("ms", "ns")
    for event in document["traceEvents"]:
        assert event["ph"] in ("M", "X")
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int) and event["name"]
        if event["ph"] == "X":
            assert event["ts"] >= 0 and event["dur"] >= 0
        else:
            assert event["name"] in ("process_name", "thread_name") and isinstance(event["args"]["name"], str)


def test_each_prediction_holds_its_operators_and_none_overlaps_the_next() -> None:
    document = written()
    predictions, operators = slices(document, 1), slices(document, 2)
    assert (len(predictions), len(operators)) == (2, 4)
    for prediction, part in zip(predictions, (operators[:2], operators[2:]), strict=True):
        end = prediction["ts"] + prediction["dur"]
        assert all(prediction["ts"] <= item["ts"] and item["ts"] + item["dur"] <= end for item in part)
    assert predictions[0]["ts"] + predictions[0]["dur"] < predictions[1]["ts"]


def test_an_operator_tells_its_nodes_work_and_bound() -> None:
    about = slices(written(), 2)[0]["args"]
    assert about["nodes"] == ["first", "bn", "relu"]
    assert (about["flops"], about["bound"], about["engine_name"]) == (10_000_000, "compute", "first")


def test_starts_that_were_not_measured_are_called_so() -> None:
    names = [event["args"]["name"] for event in written(measured=False)["traceEvents"] if event["ph"] == "M"]
    assert "operators (typical times laid end to end)" in names
