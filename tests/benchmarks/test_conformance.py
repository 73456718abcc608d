"""What `make conformance` compares, told without any server."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from tritonclient.grpc import service_pb2 as pb

from conformance.compare import Difference, compare, read_differences
from conformance.grpc_probes import grpc_probes
from conformance.http_probes import http_probes
from conformance.page import page
from conformance.probe import Outcome
from conformance.words import grpc_words, http_words

GOOD, BAD, WORSE = Outcome("200", "y = 1"), Outcome("400"), Outcome("500")
ROW = Difference(("bad: a",), "400", "500", "The client is at fault.")


def problems(ours: Outcome, theirs: Outcome, *rows: Difference) -> list[str]:
    return [one.problem for one in compare({"bad: a": ours}, {"bad: a": theirs}, rows) if one.problem]


def test_equal_answers_need_no_review() -> None:
    assert not problems(GOOD, Outcome("200", "y = 1"))


@pytest.mark.parametrize("theirs", [WORSE, Outcome("400", "text")], ids=["status", "words"])
def test_a_difference_that_nobody_has_reviewed_is_a_problem(theirs: Outcome) -> None:
    assert problems(BAD, theirs) == ["differs, and nobody has reviewed it"]


def test_a_reviewed_difference_is_none_and_carries_its_row() -> None:
    [found] = compare({"bad: a": BAD}, {"bad: a": WORSE}, [ROW])
    assert (found.problem, found.difference) == ("", ROW)


def test_a_row_excuses_just_the_statuses_that_it_names() -> None:
    assert problems(BAD, GOOD, ROW) == ["reviewed as 400 against 500"]
    assert problems(Outcome("404"), WORSE, ROW) == ["reviewed as 400 against 500"]


def test_a_row_may_name_the_whole_words() -> None:
    row = Difference(("bad: a",), "400", "200 y = 1", "Nothing is ignored.")
    assert not problems(BAD, GOOD, row)
    assert problems(BAD, Outcome("200", "y = 2"), row)


def test_a_row_is_out_of_date_where_the_difference_is_gone_or_the_probe_is() -> None:
    assert problems(BAD, BAD, ROW) == ["reviewed as a difference, but the answers are the same"]
    assert problems(GOOD, GOOD, Difference(("bad: gone",), "1", "2", "why")) == ["reviewed, but there is no such probe"]


def test_a_list_that_names_a_probe_twice_or_gives_no_reason_is_refused(tmp_path: Path) -> None:
    row = '[[difference]]\nprobes = ["a"]\nhasten = "1"\ntriton = "2"\nreason = "{}"\n'
    for text, match in ((row.format("why") * 2, "more than once: a"), (row.format(" "), "needs probes and a reason")):
        (tmp_path / "list.toml").write_text(text)
        with pytest.raises(ValueError, match=match):
            read_differences(tmp_path / "list.toml")


def test_the_reviewed_list_names_probes_that_exist_and_probes_have_names_of_their_own() -> None:
    names = [probe.name for probe in (*http_probes(), *grpc_probes())]
    assert len(names) >= 60
    assert len(set(names)) == len(names)
    listed = {probe for row in read_differences() for probe in row.probes}
    # KServe's clients live in an environment of their own, and so do the names of what they ask.
    assert {probe for probe in listed if not probe.startswith("kserve ")} <= set(names)


def http(document: object, data: bytes = b"", status: int = 200, binary: bool = False) -> str:
    head = json.dumps(document).encode()
    return http_words(status, {"inference-header-content-length": str(len(head))} if binary else {}, head + data)


def test_answers_in_json_and_binary_tell_their_values_and_how_they_came() -> None:
    y = {"name": "y", "datatype": "FP32", "shape": [1, 2]}
    answer = {"model_name": "m", "model_version": "1", "id": "7"}
    said = "id 7, version 1, y FP32[1, 2], y = 1 2.5"
    assert http({**answer, "outputs": [{**y, "data": [[1.0, 2.5]]}]}) == said
    blob = {**answer, "outputs": [{**y, "parameters": {"binary_data_size": 8}}]}
    assert http(blob, struct.pack("<2f", 1, 2.5), binary=True) == f"{said} binary"
    assert "3 bytes left over" in http(blob, struct.pack("<2f", 1, 2.5) + b"abc", binary=True)


def test_the_wording_of_a_refusal_does_not_count_and_its_form_does() -> None:
    assert http({"error": "no"}, status=400) == http({"error": "never", "code": "invalid"}, status=400) == ""
    assert http_words(400, {}, b"no") == "text"
    assert http({"detail": "no"}, status=400) == '{"detail": "no"}'


def test_typed_and_raw_answers_over_grpc_differ_in_one_word() -> None:
    output = {"name": "y", "datatype": "FP32", "shape": [1, 2]}
    typed = pb.ModelInferResponse(model_version="1", outputs=[{**output, "contents": {"fp32_contents": [1, 2.5]}}])
    raw = pb.ModelInferResponse(model_version="1", outputs=[output], raw_output_contents=[struct.pack("<2f", 1, 2.5)])
    assert grpc_words(typed) == "version 1, y FP32[1, 2], y = 1 2.5"
    assert grpc_words(raw) == f"{grpc_words(typed)} raw"
    assert grpc_words(pb.ModelStreamInferResponse(error_message="no")) == "error"


def test_the_page_counts_by_class_and_tells_reasons_and_problems() -> None:
    ours = {"bad: a": BAD, "json: b": GOOD, "json: c": GOOD}
    text = page(compare(ours, {"bad: a": WORSE, "json: b": GOOD, "json: c": WORSE}, [ROW]), "2.0")
    assert "3 probes against tritonserver 2.0: 1 answered alike, 1 differ as meant, 1 problems." in text
    assert "| json | 2 | 1 | 0 |" in text
    assert "- **400, Triton 500**: bad: a. The client is at fault." in text
    assert "| json: c | 200 y = 1 | 500 | differs, and nobody has reviewed it |" in text
