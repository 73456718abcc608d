from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasten.errors import RequestError
from hasten.serve.access import Operation
from hasten.serve.http.routes import Route, resolve


@pytest.mark.parametrize(
    ("target", "route"),
    [
        ("/v2", Route(Operation.SERVER_METADATA)),
        ("/v2/", Route(Operation.SERVER_METADATA)),
        ("/v2/health/live?x=1", Route(Operation.LIVE)),
        ("/v2/health/ready/", Route(Operation.READY)),
        ("/v2/models/a.b-c", Route(Operation.MODEL_METADATA, "a.b-c")),
        ("/v2/models/%61", Route(Operation.MODEL_METADATA, "a")),
        ("/v2/models/m/versions/1/ready", Route(Operation.MODEL_READY, "m", "1")),
        ("/v2/models/m/infer", Route(Operation.INFER, "m")),
        ("/v2/models/...", Route(Operation.MODEL_METADATA, "...")),
        ("/v2/models/model..1", Route(Operation.MODEL_METADATA, "model..1")),
    ],
)
def test_a_path_names_its_operation(target: str, route: Route) -> None:
    assert resolve(target.encode()) == route


# Whatever a proxy, a framework or a file system might take for a path of ours is none (A16).
@pytest.mark.parametrize(
    "target",
    [
        "", "/", "v2", "*", "//v2", "/v2//", "/V2", "/v2/models", "/v2/models//infer", "//v2/models/m/infer",
        "/v2/./models/m/infer", "/v2/../v2/models/m/infer", "/x/../v2/models/m/infer", "/v2/%2e%2e/v2/models/m/infer",
        "/v2/models/m/infer//", "/v2/models/m/infer;x", "/v2/models/m;x/infer/y", "/v2/models/m/infer/.",
        "/v2/models/m/%69nfer", "/%762/models/m/infer", "/v2%2Fmodels/m/infer", "\\v2\\models\\m\\infer",
        "/v2/models/m/INFER", "/v2/models/m/infer%00", "/v2/models/m/infer%20", "/v2/models/m/generate",
        "/invocations", "/v1/models/m:predict", "/v2/repository/models/m/load/x", "http://localhost/v2",
        "/v2/systemsharedmemory/status", "/v2/cudasharedmemory/region/x/register", "/v2/logging", "/v2/trace/setting",
    ],
)  # fmt: skip
def test_an_alias_of_a_path_names_nothing(target: str) -> None:
    with pytest.raises(RequestError) as caught:
        resolve(target.encode())
    assert caught.value.code in ("not_found", "invalid")


@pytest.mark.parametrize(
    "name",
    [
        "..", ".", "%2e%2e", "%2E", "..%2f..%2fetc", "a%2Fb", "a%5Cb", "%5c..", "%20", "%09", "a%20", "%0a", "a%0Db",
        "%00", "a%00b", "a%E2%88%95b", "%C3%A9", "%ff", "%1b[31m", "%3Cimg%3E", "%", "%zz", "a;b", "x" * 256,
        "x" * 10_000, "é",
    ],
)  # fmt: skip
def test_a_name_that_no_model_can_have_is_invalid(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        resolve(f"/v2/models/{name}".encode())
    assert caught.value.code == "invalid"
    assert len(caught.value.message) < 200


@given(st.binary(max_size=60), st.sampled_from([b"", b"/v2/", b"/v2/models/"]))
def test_any_target_is_a_route_or_a_request_error(target: bytes, start: bytes) -> None:
    try:
        route = resolve(start + target)
    except RequestError as error:
        assert error.code in ("not_found", "invalid")
    else:
        assert isinstance(route.operation, Operation)
