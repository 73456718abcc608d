"""The whole way: real requests to a real server, a real scrape, read by the parsers of the Prometheus project."""

from __future__ import annotations

import http.client
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from hasten.bundle.read import Bundle
from hasten.observe.base import tee
from hasten.observe.log import Log
from hasten.observe.prometheus import Metrics
from hasten.serve.access import Access, Scope
from hasten.serve.server import Front, Options, Running, serve_bundle
from hasten.serve.telemetry import Telemetry

INFER = "/v2/models/tiny/infer"
GOOD = json.dumps({"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": [1] * 8}]})
BAD = json.dumps({"inputs": [{"name": "x", "shape": [1, 5], "datatype": "FP32", "data": [1] * 5}]})
OPEN = "application/openmetrics-text; version=1.0.0"
TOKENS = {scope: f"{scope.value}-token-of-a-test" for scope in Scope}


class Client:
    """One connection to a server."""

    def __init__(self, server: Running) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)

    def call(
        self, method: str, path: str, body: str | None = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, body, given)
        response = self._connection.getresponse()
        return response, response.read()

    def scrape(self, **headers: str) -> dict[tuple[str, ...], float]:
        """Values by name and the values of labels, these in the order of the labels' names."""
        response, body = self.call("GET", "/metrics", **headers)
        assert response.status == 200, body
        read = read_openmetrics if "openmetrics" in (response.getheader("content-type") or "") else read_text
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in read(body.decode())
            for sample in family.samples
        }

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def client(bundle: Bundle) -> Generator[Client]:
    metrics = Metrics()
    with serve_bundle(bundle, Options(telemetry=Telemetry(sink=metrics, page=metrics.page))) as server:
        client = Client(server)
        yield client
        client.close()


def test_a_scrape_tells_of_every_request_where_its_time_went(client: Client) -> None:
    for _ in range(3):
        assert client.call("POST", INFER, GOOD)[0].status == 200
    for accept in ("", OPEN):
        page = client.scrape(accept=accept)
        who, model = ("default", "tiny", "reference", "1"), ("tiny", "reference", "1")
        assert page["hasten_request_duration_seconds_count", *who] == 3
        stages = {
            stage: page["hasten_request_stage_duration_seconds_sum", "default", "tiny", stage, "reference", "1"]
            for stage in ("wire", "queue", "batch", "engine")
        }
        assert all(seconds >= 0 for seconds in stages.values())
        assert stages["engine"] > 0
        assert stages["wire"] > 0
        assert sum(stages.values()) <= page["hasten_request_duration_seconds_sum", *who]
        assert page["hasten_request_rows_total", *who] == 6
        assert page["hasten_request_bytes_total", *who] == 3 * len(GOOD)
        assert page["hasten_response_bytes_total", *who] > 0
        assert page["hasten_batch_rows_sum", *model] == 6
        assert page["hasten_batches_total", "free", *model] == 3
        assert page["hasten_queue_requests", *who] == 0
        assert page["hasten_workers_up", *model] == 1
        assert page["hasten_model_ready", *model] == 1
        assert page["hasten_worker_starts_total", "tiny", "reference"] == 1
        assert page[("process_resident_memory_bytes",)] > 1e6


def test_each_kind_of_refusal_is_counted_once(client: Client) -> None:
    client.call("POST", INFER, BAD)
    client.call("POST", INFER, "no json")
    client.call("POST", "/v2/models/other/infer", GOOD)
    client.call("GET", "/nowhere")
    client.call("GET", "/v2", host="evil.test")
    page = client.scrape()
    refusals = {key[1:]: value for key, value in page.items() if key[0] == "hasten_refusals_total"}
    assert refusals == {
        ("", "tiny", "invalid"): 2,
        ("", "_unknown", "not_found"): 1,
        ("", "_none", "not_found"): 1,
        ("", "_none", "forbidden"): 1,
    }


def test_a_long_body_that_is_not_valid_is_counted_once_too(client: Client) -> None:
    assert client.call("POST", INFER, "[" + "1," * 2**20)[0].status == 400
    page = client.scrape()
    assert {key[1:]: value for key, value in page.items() if key[0] == "hasten_refusals_total"} == {
        ("", "tiny", "invalid"): 1
    }


def test_thousands_of_names_that_nobody_serves_add_one_series(client: Client) -> None:
    before = len(client.scrape())
    for number in range(2000):
        client.call("GET", f"/v2/models/model-{number}")
    page = client.scrape()
    assert len(page) - before <= 5
    assert page["hasten_refusals_total", "", "_unknown", "not_found"] == 2000


def test_metrics_need_a_token_of_their_own_scope(bundle: Bundle) -> None:
    metrics = Metrics()
    front = Front(access=Access({scope: [token] for scope, token in TOKENS.items()}))
    with serve_bundle(bundle, Options(front=front, telemetry=Telemetry(sink=metrics, page=metrics.page))) as server:
        client = Client(server)
        assert client.call("GET", "/metrics")[0].status == 401
        assert client.call("GET", "/metrics", authorization=f"Bearer {TOKENS[Scope.INFER]}")[0].status == 403
        assert client.scrape(authorization=f"Bearer {TOKENS[Scope.METRICS]}")
        client.close()


def test_without_metrics_there_is_nothing_at_their_path(bundle: Bundle) -> None:
    with serve_bundle(bundle) as server:
        client = Client(server)
        assert client.call("GET", "/metrics")[0].status == 404
        client.close()


def test_a_page_that_fails_is_a_plain_error_and_serving_goes_on(bundle: Bundle) -> None:
    def broken(accept: str, gauges: Any) -> tuple[str, bytes]:
        raise ZeroDivisionError("a secret of /usr/lib")

    with serve_bundle(bundle, Options(telemetry=Telemetry(page=broken))) as server:
        client = Client(server)
        response, body = client.call("GET", "/metrics")
        assert response.status == 500
        assert b"secret" not in body
        assert client.call("POST", INFER, GOOD)[0].status == 200
        client.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_for_the_log_stops_no_answer_and_is_counted(bundle: Bundle) -> None:
    log = Log(Path("/dev/full"), requests=True)
    metrics = Metrics({"log": log})

    with serve_bundle(bundle, Options(telemetry=Telemetry(sink=tee([metrics, log]), page=metrics.page))) as server:
        client = Client(server)
        for _ in range(20):
            assert client.call("POST", INFER, GOOD)[0].status == 200
        log.close()
        page = client.scrape()
        client.close()
    assert page["hasten_observations_lost_total", "log", "error"] == 21, "twenty answers, and the start of the worker"
    assert page["hasten_request_duration_seconds_count", "default", "tiny", "reference", "1"] == 20


def test_a_request_id_comes_back_and_stands_in_the_log(bundle: Bundle, tmp_path: Path) -> None:
    log = Log(tmp_path / "log", requests=True)
    with serve_bundle(bundle, Options(telemetry=Telemetry(sink=log))) as server:
        client = Client(server)
        ids = [
            client.call("POST", INFER, GOOD, x_request_id="mine:1")[0].getheader("x-request-id"),
            client.call("POST", INFER, GOOD, x_request_id='forged","event":"x')[0].getheader("x-request-id"),
            client.call("POST", INFER, BAD)[0].getheader("x-request-id"),
        ]
        client.close()
    log.close()
    assert ids[0] == "mine:1"
    assert len(set(ids)) == 3
    assert all(id_ and id_.isascii() and id_.isprintable() for id_ in ids)
    records = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(record["event"], record["request_id"]) for record in records if "request_id" in record] == [
        ("answered", ids[0]),
        ("answered", ids[1]),
        ("refused", ids[2]),
    ]


def test_requests_over_grpc_are_counted_too(bundle: Bundle) -> None:
    triton = pytest.importorskip("tritonclient.grpc", reason="an independent client of gRPC")
    metrics = Metrics()
    telemetry = Telemetry(sink=metrics, page=metrics.page)
    tensor = triton.InferInput("x", [2, 4], "FP32")
    tensor.set_data_from_numpy(np.ones((2, 4), np.float32))
    with serve_bundle(bundle, Options(front=Front(grpc=("127.0.0.1", 0)), telemetry=telemetry)) as server:
        with triton.InferenceServerClient(server.grpc) as opened:
            opened.infer("tiny", [tensor])
            for model in ("nobody", "tiny"):
                with pytest.raises(triton.InferenceServerException):
                    opened.infer(model, [tensor], model_version="" if model == "nobody" else "7")
        client = Client(server)
        page = client.scrape()
        client.close()
    who = ("default", "tiny", "reference", "1")
    assert page["hasten_request_duration_seconds_count", *who] == 1
    assert page["hasten_request_rows_total", *who] == 2
    assert page["hasten_request_bytes_total", *who] > 0
    assert page["hasten_response_bytes_total", *who] > 0
    for model in ("_unknown", "tiny"):
        assert page["hasten_refusals_total", "", model, "not_found"] == 1


def test_whoever_is_not_let_in_is_counted_over_grpc_as_over_http(bundle: Bundle) -> None:
    triton = pytest.importorskip("tritonclient.grpc", reason="an independent client of gRPC")
    metrics = Metrics()
    access = Access({scope: [token] for scope, token in TOKENS.items()})
    with (
        serve_bundle(
            bundle,
            Options(
                front=Front(grpc=("127.0.0.1", 0), access=access), telemetry=Telemetry(sink=metrics, page=metrics.page)
            ),
        ) as server,
        triton.InferenceServerClient(server.grpc) as opened,
    ):
        client = Client(server)
        for token, times in (("wrong-token-of-a-test", 2), (TOKENS[Scope.METRICS], 3)):
            shown = {"authorization": f"Bearer {token}"}
            for _ in range(times):
                with pytest.raises(triton.InferenceServerException):
                    opened.get_server_metadata(headers=shown)
            client.call("GET", "/v2", **shown)
        page = client.scrape(authorization=f"Bearer {TOKENS[Scope.METRICS]}")
        client.close()
    assert page["hasten_refusals_total", "", "_none", "unauthenticated"] == 3
    assert page["hasten_refusals_total", "", "_none", "forbidden"] == 4
