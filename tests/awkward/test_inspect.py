"""Awkward models open, and `hasten inspect` says what they are."""

from __future__ import annotations

import json
import resource
from typing import Any

import pytest
from click.testing import CliRunner

from hasten.cli.inspect import command
from hasten.engine.base import engines
from hasten.model.open import open_model
from hasten.spec.target import Target


def inspected(path: Any) -> dict[str, Any]:
    done = CliRunner().invoke(command, [str(path), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_it_opens_with_the_signature_that_the_engine_sees(awkward: Any) -> None:
    session = engines.get("onnxruntime").load(awkward.path, Target(engine="onnxruntime"))
    ours, theirs = open_model(awkward.path).signature, session.signature
    session.close()
    for left, right in ((ours.inputs, theirs.inputs), (ours.outputs, theirs.outputs)):
        assert [(s.name, s.dtype, len(s.shape)) for s in left] == [(s.name, s.dtype, len(s.shape)) for s in right]


def test_inspect_gives_counts_or_says_what_it_could_not_count(awkward: Any) -> None:
    document = inspected(awkward.path)
    assert document["operators"]
    assert document["macs"] > 0 or awkward.name in ("text_input", "no_float_weights")
    assert bool(document["uncounted_operators"]) <= bool(document["limits"])
    assert all(item["remedy"] and item["message"] for item in document["findings"])


@pytest.mark.slow
def test_three_gigabytes_of_weights_are_inspected_in_little_memory(giant: Any) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    document = inspected(giant.path)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert document["bytes"] > 3_200_000_000
    assert document["parameters"] == 800_000_064
    assert document["macs"] == 64
    # Pages of a mapped file may count as ours while they are read; a copy of the weights would be 3,200 MB and more.
    assert grown_mb < 4000
