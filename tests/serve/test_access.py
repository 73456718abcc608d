from __future__ import annotations

from typing import Any

import pytest

from hasten.errors import RequestError, UsageError
from hasten.serve import access as access_module
from hasten.serve.access import Access, Operation, Scope

INFER, ADMIN, BOTH = "infer-token-of-a-test", "admin-token-of-a-test", "token-that-may-do-all"
TOKENS = {Scope.INFER: [INFER, BOTH], Scope.ADMIN: [ADMIN, BOTH]}
OPEN = {Operation.LIVE, Operation.READY, Operation.API}


def verdict(access: Access, operation: Operation, authorization: str | None) -> str:
    try:
        access.decide(operation, authorization)
    except RequestError as error:
        return error.code
    return "allowed"


@pytest.mark.parametrize("operation", Operation)
def test_a_token_is_good_for_its_scope_and_for_nothing_else(operation: Operation) -> None:
    access = Access(TOKENS, off=())
    for token, scopes in ((INFER, {Scope.INFER}), (ADMIN, {Scope.ADMIN}), (BOTH, {Scope.INFER, Scope.ADMIN})):
        allowed = operation in OPEN or operation.scope in scopes
        assert verdict(access, operation, f"Bearer {token}") == ("allowed" if allowed else "forbidden")


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", f"Bearer {INFER}x", f"Basic {INFER}", INFER, f"Bearer {INFER} {INFER}", "Bearer ü"],
)
def test_without_a_known_token_only_probes_are_answered(authorization: str | None) -> None:
    access = Access(TOKENS, off=())
    for operation in Operation:
        wanted = "allowed" if operation in OPEN else "unauthenticated"
        assert verdict(access, operation, authorization) == wanted


def test_where_there_is_no_token_at_all_everything_but_administration_is_open() -> None:
    access = Access(off=())
    for operation in Operation:
        wanted = "unauthenticated" if operation.scope is Scope.ADMIN else "allowed"
        assert verdict(access, operation, None) == wanted


def test_what_is_switched_off_does_not_exist_whatever_the_token() -> None:
    access = Access(TOKENS, off=[Operation.INFER])
    for authorization in (None, f"Bearer {BOTH}", "Bearer wrong"):
        assert verdict(access, Operation.INFER, authorization) == "not_found"


def test_repository_control_does_not_exist_unless_it_is_switched_on() -> None:
    for operation in (Operation.LOAD, Operation.UNLOAD):
        assert verdict(Access(TOKENS), operation, f"Bearer {ADMIN}") == "not_found"
        assert verdict(Access(TOKENS, off=()), operation, f"Bearer {ADMIN}") == "allowed"


def test_tokens_are_compared_in_constant_time_and_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[Any] = []

    def compare(known: bytes, given: bytes) -> bool:
        compared.append((len(known), len(given)))
        return known == given

    access = Access(TOKENS)
    monkeypatch.setattr(access_module.hmac, "compare_digest", compare)
    for token in (INFER, "short", "x" * 1000):
        compared.clear()
        verdict(access, Operation.INFER, f"Bearer {token}")
        assert compared == [(32, 32)] * 3


@pytest.mark.parametrize(
    "token", ["", "brief", "a token with some spaces", "a-token-with-an-ü-in-it", "tab\tin-the-token"]
)
def test_a_weak_or_odd_token_is_refused_with_the_command_that_makes_a_good_one(token: str) -> None:
    with pytest.raises(UsageError, match=r"secrets\.token_urlsafe") as caught:
        Access({Scope.INFER: [token]})
    assert not token or token not in str(caught.value), "a token is never shown"


def page(access: Access, **headers: str) -> str:
    try:
        access.admit_page({name.replace("_", "-"): value for name, value in headers.items()})
    except RequestError as error:
        return error.code
    return "allowed"


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("localhost", "allowed"),
        ("LOCALHOST:8000", "allowed"),
        ("localhost.:8000", "allowed"),
        ("127.0.0.1:8000", "allowed"),
        ("[::1]:8000", "allowed"),
        ("192.0.2.7", "allowed"),  # no DNS answer is involved in reaching a literal address
        ("models.example", "allowed"),
        ("evil.test", "forbidden"),
        ("localhost.evil.test", "forbidden"),
        ("127.0.0.1.evil.test", "forbidden"),
        ("", "forbidden"),
        ("evil.test:80@localhost", "forbidden"),
        ("2130706433", "forbidden"),
    ],
)
def test_the_server_answers_to_its_own_names_only(host: str, wanted: str) -> None:
    access = Access(hosts=["models.example"])
    assert [page(access, host=host), page(access, host=host)] == [wanted] * 2


def test_any_name_will_do_where_tokens_keep_strangers_out() -> None:
    assert page(Access(TOKENS, hosts=None), host="inference.internal:8000") == "allowed"


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({}, "allowed"),
        ({"user_agent": "Mozilla/5.0"}, "allowed"),
        ({"origin": "http://localhost:8000"}, "allowed"),
        ({"origin": "http://localhost:8000", "sec_fetch_site": "same-origin"}, "allowed"),
        ({"sec_fetch_site": "none"}, "allowed"),
        ({"origin": "https://notebook.example", "sec_fetch_site": "cross-site"}, "allowed"),
        ({"origin": "http://localhost:9000", "sec_fetch_site": "same-site"}, "forbidden"),
        ({"origin": "http://localhost:9000"}, "forbidden"),
        ({"origin": "http://evil.test"}, "forbidden"),
        ({"origin": "null"}, "forbidden"),
        ({"origin": "http://localhost:8000", "sec_fetch_site": "cross-site"}, "forbidden"),
        ({"sec_fetch_site": "cross-site"}, "forbidden"),
        ({"sec_fetch_site": "same-site"}, "forbidden"),
    ],
)
def test_pages_of_others_may_not_use_the_server_and_programs_may(headers: dict[str, str], wanted: str) -> None:
    access = Access(origins=["https://notebook.example"])
    assert page(access, host="localhost:8000", **headers) == wanted
