from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hasten.errors import RequestError
from hasten.serve.access import Access, Scope
from hasten.serve.guard import Guard
from hasten.serve.http.frontend import Frontend
from hasten.serve.http.message import HttpRequest
from hasten.serve.rate import Rate
from hasten.serve.unread import Unread

TOKEN = "infer-token-of-a-test"
REPOSITORY: Any = SimpleNamespace(services={"m": SimpleNamespace(ready=True)})


def verdict(frontend: Frontend, method: str, target: str, **headers: str) -> str:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        frontend.open(HttpRequest(method, target.encode(), {"host": "localhost", **given}))
    except RequestError as error:
        return error.code
    return "allowed"


@pytest.fixture
def guarded() -> Frontend:
    return Frontend(REPOSITORY, guard=Guard(Access({Scope.INFER: [TOKEN]})))


@pytest.mark.parametrize(
    "target",
    [
        "/v2/models/m/infer",
        "/v2/models/%6d/infer",
        "/v2/models/m/infer/",
        "/v2/models/m/versions/1/infer",
        "/v2/models/m/infer?x",
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_the_decision_is_the_same_by_every_alias_and_method(guarded: Frontend, target: str, method: str) -> None:
    for _ in range(2):  # the second time the target is known
        assert verdict(guarded, method, target) == "unauthenticated"
        assert verdict(guarded, method, target, authorization="Bearer wrong-token-of-a-test") == "unauthenticated"
        good = verdict(guarded, method, target, authorization=f"Bearer {TOKEN}")
        assert good == ("allowed" if method == "POST" else "method_not_allowed")


@pytest.mark.parametrize("target", ["/v2/models/nothing/infer", "/v2/models/m/versions/2/infer", "/v2/models/nothing"])
def test_who_may_not_ask_does_not_learn_which_models_there_are(guarded: Frontend, target: str) -> None:
    assert verdict(guarded, "POST", target) == "unauthenticated"


def test_a_token_in_the_query_is_none(guarded: Frontend) -> None:
    assert verdict(guarded, "POST", f"/v2/models/m/infer?token={TOKEN}&access_token={TOKEN}") == "unauthenticated"


def test_headers_that_would_override_the_method_or_the_path_do_not(guarded: Frontend) -> None:
    headers = {"x_http_method_override": "POST", "x_original_url": "/v2/models/m/infer", "x_rewrite_url": "/v2"}
    token = f"Bearer {TOKEN}"
    assert verdict(guarded, "GET", "/v2/models/m/infer", authorization=token, **headers) == "method_not_allowed"
    assert verdict(guarded, "GET", "/nothing", authorization=token, **headers) == "not_found"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_a_foreign_page_is_refused_before_anything_else(guarded: Frontend, method: str) -> None:
    token = f"Bearer {TOKEN}"
    for target in ("/v2/models/m/infer", "/nothing", "/v2/health/live"):
        assert verdict(guarded, method, target, authorization=token, origin="http://evil.test") == "forbidden"
        assert verdict(guarded, method, target, authorization=token, host="evil.test") == "forbidden"


def opened(frontend: Frontend) -> HttpRequest:
    request = HttpRequest("POST", b"/v2/models/m/infer", {"host": "localhost"})
    frontend.open(request)
    return request


def test_whoever_sends_the_same_header_again_asks_as_often_as_anybody() -> None:
    frontend = Frontend(REPOSITORY, guard=Guard(rate=Rate(requests_per_s=1e-6, burst=3)))
    request = opened(frontend)
    for _ in range(2):
        frontend.reopen(request)
    with pytest.raises(RequestError) as refused:
        frontend.reopen(request)
    assert refused.value.code == "rate_limited"


def test_a_model_that_is_gone_is_not_found_by_a_known_header() -> None:
    repository: Any = SimpleNamespace(services={"m": SimpleNamespace(ready=True)})
    frontend = Frontend(repository)
    request = opened(frontend)
    frontend.reopen(request)
    del repository.services["m"]
    with pytest.raises(RequestError) as refused:
        frontend.reopen(request)
    assert refused.value.code == "not_found"


def test_many_different_targets_do_not_pile_up(guarded: Frontend) -> None:
    for number in range(5000):
        verdict(guarded, "POST", f"/v2/models/m/infer?{number}", authorization=f"Bearer {TOKEN}")
    assert len(guarded._routes) <= 1024


def test_while_clients_leave_too_much_unread_a_long_body_is_not_waited_for() -> None:
    unread = Unread(10)
    frontend = Frontend(REPOSITORY, unread=unread)
    request = HttpRequest("POST", b"/v2/models/m/infer", {"host": "localhost"})
    frontend.open(request)
    unread.bytes = 11
    refuses = frontend.turn_away(request, b"")
    assert refuses is not None
    statuses: list[int] = []
    refuses(request, lambda status, _: statuses.append(status))
    assert statuses == [429]
