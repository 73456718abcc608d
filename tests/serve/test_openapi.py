"""The server keeps what its OpenAPI file promises: schemathesis makes requests from the file and judges the answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from hasten.bundle.read import Bundle
from hasten.serve.http.management import api_description
from hasten.serve.server import Running, serve_bundle

schemathesis = pytest.importorskip("schemathesis", reason="asks everything that the file promises")
# Load and unload are not there by default; tests/serve/test_management.py switches them on.
schema = schemathesis.openapi.from_dict(json.loads(api_description())).exclude(path_regex="/repository/models/")
# What is answered must be as described. That everything which fits the schema is taken nobody promises: a model has
# names, types and shapes of its own.
CHECKS = [
    schemathesis.checks.CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "unsupported_method",
        "allow_header_conformance",
    )
]


@pytest.fixture(scope="module")
def server(bundle: Bundle) -> Iterator[Running]:
    with serve_bundle(bundle) as running:
        yield running


@schema.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_every_answer_is_as_described(server: Running, case: Any) -> None:
    if case.path_parameters and "model_name" in case.path_parameters:
        case.path_parameters["model_name"] = "tiny"
    case.call_and_validate(base_url=server.url, checks=CHECKS)
