"""Statistics, configuration, the repository and the API's description, over the running server."""

from __future__ import annotations

import http.client
import json
import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from hasten.bundle.manifest import MANIFEST
from hasten.bundle.read import Bundle, open_bundle
from hasten.serve.access import Access, Operation, Scope
from hasten.serve.http.management import api_description
from hasten.serve.http.routes import resolve
from hasten.serve.server import Front, Options, Running, serve_bundle
from hasten.wire.base import STATUS

triton = pytest.importorskip("tritonclient.http", reason="an independent client judges the server")

ADMIN = "admin-token-of-a-test"
INFER = "infer-token-of-a-test"
X = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}


def call(running: Running, method: str, path: str, body: Any = None, token: str = INFER) -> tuple[int, Any]:
    client = http.client.HTTPConnection(urlsplit(running.url).netloc, timeout=30)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        client.request(method, path, None if body is None else json.dumps(body), headers)
        answer = client.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        client.close()


@pytest.fixture
def own_bundle(bundle: Bundle, tmp_path: Path) -> Bundle:
    """A copy that a test may damage."""
    shutil.copytree(bundle.path, tmp_path / "tiny")
    return open_bundle(tmp_path / "tiny")


@pytest.fixture
def open_server(own_bundle: Bundle) -> Iterator[Running]:
    with serve_bundle(own_bundle) as running:
        yield running


@pytest.fixture
def controlled(own_bundle: Bundle) -> Iterator[Running]:
    """A server with repository control, and a token for each scope."""
    tokens = {Scope.ADMIN: [ADMIN], Scope.INFER: [INFER], Scope.METRICS: [INFER]}
    with serve_bundle(own_bundle, Options(front=Front(access=Access(tokens, off=())))) as running:
        yield running


def test_statistics_count_what_was_answered_and_what_was_not_and_why(open_server: Running) -> None:
    for _ in range(3):
        assert call(open_server, "POST", "/v2/models/tiny/infer", {"inputs": [X]})[0] == 200
    assert call(open_server, "POST", "/v2/models/tiny/infer", {"inputs": []})[0] == 400
    two = {**X, "shape": [2, 4], "data": [1] * 8}
    assert call(open_server, "POST", "/v2/models/tiny/infer", {"inputs": [two]})[0] == 200
    with triton.InferenceServerClient(urlsplit(open_server.url).netloc) as client:
        [mine] = client.get_inference_statistics("tiny")["model_stats"]
        [of_all] = client.get_inference_statistics()["model_stats"]
    assert mine == of_all
    assert (mine["inference_count"], mine["execution_count"]) == (5, 4)
    stats = mine["inference_stats"]
    assert (stats["success"]["count"], stats["fail"]["count"]) == (4, 1)
    assert stats["success"]["ns"] == pytest.approx(stats["queue"]["ns"] + stats["compute_infer"]["ns"], abs=10)
    assert 0 < stats["queue"]["ns"] < stats["success"]["ns"] < 60e9
    assert [row["batch_size"] for row in mine["batch_stats"]] == [1]
    assert mine["refusals"] == {"invalid": 1}


def test_the_configuration_says_how_the_model_is_served(open_server: Running) -> None:
    with triton.InferenceServerClient(urlsplit(open_server.url).netloc) as client:
        config = client.get_model_config("tiny")
    assert (config["name"], config["max_batch_size"]) == ("tiny", 8)
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]


def test_the_index_lists_models_and_whether_they_are_ready(open_server: Running) -> None:
    row = {"name": "tiny", "version": "1", "state": "READY", "reason": ""}
    with triton.InferenceServerClient(urlsplit(open_server.url).netloc) as client:
        assert client.get_model_repository_index() == [row]
    assert call(open_server, "POST", "/v2/repository/index", {"ready": True}) == (200, [row])
    assert call(open_server, "POST", "/v2/repository/index", {"ready": 1})[0] == 400
    assert call(open_server, "GET", "/v2/repository/index")[0] == 405


@pytest.mark.parametrize("token", ["", INFER, ADMIN])
@pytest.mark.parametrize("verb", ["load", "unload"])
def test_repository_control_is_not_there_by_default(open_server: Running, verb: str, token: str) -> None:
    status, answer = call(open_server, "POST", f"/v2/repository/models/tiny/{verb}", {}, token)
    assert (status, answer["code"]) == (404, "not_found")


@pytest.mark.parametrize(("token", "status"), [("", 401), ("wrong-token-of-a-test", 401), (INFER, 403)])
def test_repository_control_needs_the_token_of_its_scope(controlled: Running, token: str, status: int) -> None:
    for verb in ("load", "unload"):
        assert call(controlled, "POST", f"/v2/repository/models/tiny/{verb}", {}, token)[0] == status
    assert call(controlled, "POST", "/v2/models/tiny/infer", {"inputs": [X]})[0] == 200


def test_who_was_turned_away_from_repository_control_is_on_the_record(
    controlled: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "hasten.serve.audit"):
        call(controlled, "POST", "/v2/repository/models/a%2e%2d/unload", {}, INFER)
        call(controlled, "POST", "/v2/models/tiny/infer", {}, "wrong-token-of-a-test")
    [record] = caplog.records
    assert json.loads(record.getMessage()) == {"event": "refused", "operation": "unload", "code": "forbidden"}
    assert INFER not in record.getMessage()


def test_a_model_goes_out_of_service_and_comes_back_and_both_are_audited(
    controlled: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO, "hasten.serve.audit"),
        triton.InferenceServerClient(urlsplit(controlled.url).netloc) as client,
    ):
        headers = {"Authorization": f"Bearer {ADMIN}"}
        client.unload_model("tiny", headers)
        assert call(controlled, "POST", "/v2/models/tiny/infer", {"inputs": [X]})[0] == 404
        assert call(controlled, "POST", "/v2/repository/index", {})[1][0]["state"] == "UNAVAILABLE"
        client.load_model("tiny", headers)
        assert call(controlled, "POST", "/v2/models/tiny/infer", {"inputs": [X]})[0] == 200
    records = [json.loads(record.getMessage()) for record in caplog.records]
    assert [(record["event"], record["model"], record["status"]) for record in records] == [
        ("unload", "tiny", 200),
        ("load", "tiny", 200),
    ]


def test_reloading_under_load_loses_no_answer(controlled: Running) -> None:
    statuses: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            statuses.append(call(controlled, "POST", "/v2/models/tiny/infer", {"inputs": [X]})[0])

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    first = controlled.services["tiny"].engine_pid
    for _ in range(3):
        assert call(controlled, "POST", "/v2/repository/models/tiny/load", {}, ADMIN)[0] == 200
    over.set()
    for thread in threads:
        thread.join()
    assert controlled.services["tiny"].engine_pid != first
    assert set(statuses) == {200}


def test_a_bundle_that_was_damaged_does_not_load_and_what_served_before_serves_on(
    controlled: Running, own_bundle: Bundle
) -> None:
    (own_bundle.path / MANIFEST).write_text("{}")
    status, answer = call(controlled, "POST", "/v2/repository/models/tiny/load", {}, ADMIN)
    assert (status, answer["code"]) == (503, "unavailable")
    assert str(own_bundle.path) not in answer["error"]
    assert call(controlled, "POST", "/v2/models/tiny/infer", {"inputs": [X]})[0] == 200


def test_what_would_change_a_proven_model_is_refused(controlled: Running) -> None:
    for body in ({"parameters": {"config": "{}"}}, {"parameters": {"file:1/model.onnx": "AAAA"}}, {"x": 1}, []):
        assert call(controlled, "POST", "/v2/repository/models/tiny/load", body, ADMIN)[0] == 400
    assert call(controlled, "POST", "/v2/repository/models/other/load", {}, ADMIN)[0] == 404


def test_the_description_names_every_operation_and_every_error(open_server: Running) -> None:
    status, document = call(open_server, "GET", "/v2/openapi.json", token="")
    assert (status, document) == (200, json.loads(api_description()))
    described = set()
    for path, methods in document["paths"].items():
        assert "$" not in path
        route = resolve(path.replace("{model_name}", "m").replace("{model_version}", "1").encode())
        assert list(methods) == [route.method.lower()]
        described.add(route.operation)
    assert described == set(Operation)
    assert document["components"]["schemas"]["Error"]["properties"]["code"]["enum"] == sorted(STATUS)
