"""Repository control over gRPC: off, guarded and on record as over HTTP."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hasten.bundle.manifest import MANIFEST
from hasten.bundle.read import Bundle, open_bundle
from hasten.serve.access import Access, Scope
from hasten.serve.server import Front, Options, Running, serve_bundle
from hasten.serve.telemetry import Telemetry
from hasten.spec.event import UNKNOWN_MODEL, Changed, Event

triton = pytest.importorskip("tritonclient.grpc", reason="an independent client judges the server")

ADMIN, INFER = "admin-token-of-a-test", "infer-token-of-a-test"
TOLD: list[Event] = []


@pytest.fixture
def own_bundle(bundle: Bundle, tmp_path: Path) -> Bundle:
    """A copy that a test may damage."""
    shutil.copytree(bundle.path, tmp_path / "tiny")
    return open_bundle(tmp_path / "tiny")


@pytest.fixture
def controlled(own_bundle: Bundle) -> Iterator[Running]:
    TOLD.clear()
    access = Access({Scope.ADMIN: [ADMIN], Scope.INFER: [INFER]}, off=())
    front = Front(access=access, grpc=("127.0.0.1", 0))
    with serve_bundle(own_bundle, Options(front=front, telemetry=Telemetry(sink=TOLD.append))) as running:
        yield running


@pytest.fixture
def client(controlled: Running) -> Iterator[Any]:
    with triton.InferenceServerClient(controlled.grpc) as opened:
        yield opened


def shown(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def status_of(call: Any, *words: Any, **fields: Any) -> str:
    with pytest.raises(triton.InferenceServerException) as caught:
        call(*words, **fields)
    return str(caught.value.status()).removeprefix("StatusCode.")


def infer(client: Any) -> list[float]:
    x = triton.InferInput("x", [1, 4], "FP32")
    x.set_data_from_numpy(np.ones((1, 4), np.float32))
    return client.infer("tiny", [x], headers=shown(INFER)).as_numpy("y").ravel().tolist()


def test_a_model_goes_out_of_service_and_comes_back_and_both_are_audited(
    client: Any, expected: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "hasten.serve.audit"):
        client.unload_model("tiny", headers={**shown(ADMIN), "x-request-id": "mine"})
        [row] = client.get_model_repository_index(headers=shown(INFER)).models
        assert (row.name, row.state, row.reason) == ("tiny", "UNAVAILABLE", "unloaded")
        assert status_of(infer, client) == "NOT_FOUND"
        client.load_model("tiny", headers=shown(ADMIN))
        assert infer(client) == expected(np.ones((1, 4))).ravel().tolist()
    records = [json.loads(record.getMessage()) for record in caplog.records]
    assert [(record["event"], record["model"], record["status"]) for record in records] == [
        ("unload", "tiny", 200),
        ("load", "tiny", 200),
    ]
    assert records[0]["request_id"] == "mine"
    assert [(event.what, event.model) for event in TOLD if isinstance(event, Changed)] == [
        ("unload", "tiny"),
        ("load", "tiny"),
    ]


@pytest.mark.parametrize(
    ("token", "status"),
    [("", "UNAUTHENTICATED"), ("wrong-token-of-a-test", "UNAUTHENTICATED"), (INFER, "PERMISSION_DENIED")],
)
def test_it_needs_the_token_of_its_scope_and_attempts_are_on_record(
    client: Any, token: str, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "hasten.serve.audit"):
        for call in (client.load_model, client.unload_model):
            assert status_of(call, "tiny", headers=shown(token) if token else None) == status
    assert [json.loads(record.getMessage())["operation"] for record in caplog.records] == ["load", "unload"]
    assert infer(client)


@pytest.mark.parametrize("token", ["", INFER, ADMIN])
def test_it_is_not_there_by_default(server: Running, token: str) -> None:
    with triton.InferenceServerClient(server.grpc) as client:
        for call in (client.load_model, client.unload_model):
            assert status_of(call, "tiny", headers=shown(token) if token else None) == "NOT_FOUND"


def test_what_would_change_a_proven_model_is_refused(client: Any, controlled: Running) -> None:
    for fields in ({"config": "{}"}, {"config": "{}", "files": {"file:1/model.onnx": b"A"}}):
        assert status_of(client.load_model, "tiny", headers=shown(ADMIN), **fields) == "INVALID_ARGUMENT"
    assert status_of(client.load_model, "other", headers=shown(ADMIN)) == "NOT_FOUND"
    assert [event.model for event in TOLD if isinstance(event, Changed)] == [UNKNOWN_MODEL]


def test_a_bundle_that_was_damaged_does_not_load_and_what_served_before_serves_on(
    client: Any, own_bundle: Bundle
) -> None:
    (own_bundle.path / MANIFEST).write_text("{}")
    assert status_of(client.load_model, "tiny", headers=shown(ADMIN)) == "UNAVAILABLE"
    assert infer(client)
