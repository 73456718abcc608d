from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.errors import RequestError
from hasten.serve.access import Caller
from hasten.serve.http.limits import HttpLimits
from hasten.serve.http.message import Handler, HttpRequest

START = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"
SECOND = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nsecond"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"

# RFC 9112: whatever two readers could take for different requests is refused, and nothing after it is read.
SMUGGLING = {
    "length and coding": START + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": START + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": START + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "the same length twice": START + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": START + b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": START + b"Content-Length: +3\r\n\r\nabc",
    "a negative length": START + b"Content-Length: -3\r\n\r\nabc",
    "no length": START + b"Content-Length:\r\n\r\nabc",
    "an endless length": START + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "a bare line feed after the line": b"POST /echo HTTP/1.1\nHost: localhost\r\n\r\n",
    "a bare line feed in the header": b"POST /echo HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n",
    "a bare line feed at the end": b"POST /echo HTTP/1.1\r\nHost: localhost\r\n\n",
    "a bare carriage return": b"POST /echo HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n",
    "a folded header": START + b"X: a\r\n b\r\n\r\n",
    "a folded first header": b"POST /echo HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "a space before the colon": b"POST /echo HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "a NUL in the header": START + b"X: a\0b\r\n\r\n",
    "an odd name": START + b"X@: b\r\n\r\n",
    "an unknown coding": START + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity": START + b"Transfer-Encoding: identity\r\n\r\n",
    "gzip before chunked": START + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "gzip after chunked": START + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked twice": START + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a hexadecimal prefix": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk with a bare line feed": CHUNKED + b"3\nabc\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "an endless chunk": CHUNKED + b"fffffffffffffffff\r\nabc",
    "a length in the trailer": CHUNKED + b"0\r\nContent-Length: 6\r\n\r\n",
    "HTTP/0.9": b"GET /echo\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version of its own": b"GET /echo HTTP/1.2\r\nHost: localhost\r\n\r\n",
    "no host": b"POST /echo HTTP/1.1\r\n\r\n",
    "two hosts": b"POST /echo HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
    "a body behind an upgrade": START + b"Connection: Upgrade\r\nUpgrade: x\r\nContent-Length: 3\r\n\r\nabc",
    "an unknown method": b"SMUGGLE /echo HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a lower-case method": b"post /echo HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a space in the target": b"POST /echo /echo HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a control character in the target": b"POST /ec\x01ho HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.mark.parametrize("in_pieces", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("what", SMUGGLING)
def test_what_could_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(
    world: Any, answers: Any, what: str, in_pieces: bool
) -> None:
    client = world.connect()
    sent = SMUGGLING[what] + SECOND
    for piece in [sent[i : i + 1] for i in range(len(sent))] if in_pieces else [sent]:
        if not client.closed:
            client.receive(piece)
    [answer] = answers(client.written)
    assert (answer.status, json.loads(answer.body)["code"]) == (400, "invalid")
    assert answer.headers["connection"] == "close"
    assert world.application.seen == []
    world.after(2.0)
    assert client.closed
    assert world.hub.buffered == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=30), st.lists(st.binary(max_size=60), min_size=1, max_size=4), st.data())
def test_requests_cut_anywhere_arrive_as_they_were_sent(
    make_world: Any, ask: Any, cuts: list[int], bodies: list[bytes], data: st.DataObject
) -> None:
    sent = b""
    for body in bodies:
        if body and data.draw(st.booleans()):
            at = data.draw(st.integers(0, len(body) - 1))
            parts = [part for part in (body[:at], body[at:]) if part]
            sent += CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nT: x\r\n\r\n"
        else:
            sent += ask("/echo", body)
    world = make_world()
    client = world.connect()
    for cut in cuts:
        client.receive(sent[:cut])
        sent = sent[cut:]
    client.receive(sent)
    assert world.application.seen == bodies
    assert world.hub.buffered == 0


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_are_answered_or_refused_and_nothing_is_left_behind(
    make_world: Any, ask: Any, answers: Any, data: st.DataObject
) -> None:
    good = bytearray(ask("/echo", b"123") + CHUNKED + b"3\r\nabc\r\n0\r\n\r\n")
    for _ in range(data.draw(st.integers(0, 5))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    world = make_world()
    client = world.connect()
    client.receive(bytes(good))
    assert {answer.status for answer in answers(client.written)} <= {200, 400, 404, 413, 417}
    world.after(100.0)
    world.after(2.0)
    assert client.closed
    client.hang_up()
    assert world.hub.buffered == 0 and len(world.hub) == 0


def test_a_header_has_a_bound_whether_it_comes_at_once_or_slowly(world: Any, answers: Any) -> None:
    at_once, slowly, in_the_target = world.connect(), world.connect(), world.connect()
    at_once.receive(START + b"X: " + b"a" * 33_000 + b"\r\n\r\n")
    slowly.receive(START)
    for _ in range(40):
        slowly.receive(b"X: " + b"a" * 1000 + b"\r\n")
    in_the_target.receive(b"GET /" + b"a" * 33_000)
    for client in (at_once, slowly, in_the_target):
        assert [answer.status for answer in answers(client.written)] == [431]
        assert client.ended


def test_a_header_line_that_never_ends_is_not_collected(world: Any, answers: Any) -> None:
    client = world.connect()
    client.receive(START + b"X: ")
    for _ in range(40):
        client.receive(b"a" * 1000)
    assert [answer.status for answer in answers(client.written)] == [431]


def test_a_header_just_within_the_bound_is_read(world: Any, answers: Any) -> None:
    client = world.connect()
    client.receive(START + b"X: " + b"a" * 32_000 + b"\r\n\r\n")
    assert [answer.status for answer in answers(client.written)] == [200]


@pytest.mark.parametrize("size", [1001, 64 * 2**20 + 1, 10**19 - 1])
def test_a_body_that_announces_too_much_is_refused_before_it_is_read(world: Any, answers: Any, size: int) -> None:
    client = world.connect()
    client.receive(START + b"Content-Length: %d\r\n\r\n" % size)
    assert [answer.status for answer in answers(client.written)] == [413]
    assert world.application.seen == []


def test_a_body_in_chunks_is_refused_where_it_passes_the_bound(world: Any, answers: Any) -> None:
    client = world.connect()
    client.receive(CHUNKED + b"3e8\r\n" + bytes(1000) + b"\r\n")
    assert client.written == b""
    client.receive(b"1\r\n1\r\n")
    assert [answer.status for answer in answers(client.written)] == [413]
    assert world.hub.buffered == 0


def test_chunks_have_a_bound_in_number(make_world: Any, answers: Any) -> None:
    world = make_world(HttpLimits(chunks=100))
    fits, floods = world.connect(), world.connect()
    fits.receive(CHUNKED + b"1\r\na\r\n" * 99 + b"0\r\n\r\n")
    assert world.application.seen == [b"a" * 99]
    floods.receive(CHUNKED + b"1\r\na\r\n" * 101)
    assert [answer.status for answer in answers(floods.written)] == [400]
    assert floods.ended


@pytest.mark.parametrize("start", [b"1;x=", b"0\r\nX: "], ids=["extension", "trailer"])
def test_what_is_no_body_has_a_bound_too(make_world: Any, answers: Any, start: bytes) -> None:
    world = make_world(HttpLimits(framing_bytes=10_000))
    client = world.connect()
    client.receive(CHUNKED + start)
    for _ in range(12):
        client.receive(b"a" * 1000)
    assert [answer.status for answer in answers(client.written)] == [400]


def test_a_refusal_is_itself_also_where_another_error_is_being_handled(world: Any, answers: Any) -> None:
    client = world.connect()
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        client.receive(START + b"Content-Length: 1001\r\n\r\n")
    assert [answer.status for answer in answers(client.written)] == [413]


def test_only_continue_can_be_expected_and_a_refusal_comes_instead_of_it(world: Any, answers: Any) -> None:
    odd, large, fine = world.connect(), world.connect(), world.connect()
    odd.receive(START + b"Content-Length: 3\r\nExpect: miracles\r\n\r\n")
    large.receive(START + b"Content-Length: 5000\r\nExpect: 100-continue\r\n\r\n")
    fine.receive(START + b"Transfer-Encoding: chunked\r\nExpect: 100-Continue\r\n\r\n")
    assert [answer.status for client in (odd, large) for answer in answers(client.written)] == [417, 413]
    assert fine.written == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_a_refusal_by_the_header_keeps_the_connection_where_the_body_is_small(
    world: Any, ask: Any, answers: Any
) -> None:
    client = world.connect()
    client.receive(ask("/nothing", b"123") + ask("/echo", b"on"))
    assert [answer.status for answer in answers(client.written)] == [404, 200]
    chunked = world.connect()
    chunked.receive(CHUNKED.replace(b"/echo", b"/nothing"))
    assert [answer.status for answer in answers(chunked.written)] == [404]
    assert chunked.ended, "how much would come nobody knows"


# A header that came before is recognised by its bytes: nothing else about it may change.


@pytest.mark.parametrize("what", SMUGGLING)
def test_a_good_header_before_it_lets_nothing_pass(world: Any, answers: Any, ask: Any, what: str) -> None:
    client = world.connect()
    for _ in range(2):
        client.receive(ask("/echo", b"abc"))
    client.receive(SMUGGLING[what] + SECOND)
    assert [answer.status for answer in answers(client.written)] == [200, 200, 400]
    assert world.application.seen == [b"abc", b"abc"]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_one_connection_answers_as_a_new_one_for_each_request_would(
    make_world: Any, ask: Any, answers: Any, data: st.DataObject
) -> None:
    bodies = st.sampled_from([b"", b"abc", b"abd", b"\r\n\r\nabc", b"\r\n\r\n"])
    targets, lines = st.sampled_from(["/echo", "/nowhere", "/bug"]), st.sampled_from([(), ("X: y",), ("Expect: x",)])
    sent = [ask(data.draw(targets), data.draw(bodies), *data.draw(lines)) for _ in range(data.draw(st.integers(1, 8)))]
    one, found, wanted = make_world(), [], []
    client = one.connect()
    for request in sent:
        fresh = make_world()
        alone = fresh.connect()
        alone.receive(request)
        wanted += [(answer.status, len(answer.body)) for answer in answers(alone.written)]
        client.receive(request)
        if alone.ended:
            break
    found = [(answer.status, len(answer.body)) for answer in answers(client.written)]
    assert found == wanted
    assert one.hub.buffered == 0


def test_whether_a_recognised_header_may_pass_still_is_decided_anew(world: Any, answers: Any, ask: Any) -> None:
    client = world.connect()
    for _ in range(2):
        client.receive(ask("/echo", b"abc"))
    world.application.reopen = _refuse
    client.receive(ask("/echo", b"abc"))
    assert [answer.status for answer in answers(client.written)] == [200, 200, 403]
    assert not client.ended


def test_what_was_found_by_a_header_is_kept_with_it(world: Any, ask: Any) -> None:
    client, open_, found = world.connect(), world.application.open, []

    def open_for_one(request: HttpRequest) -> Handler:
        request.caller = Caller(tenant="one")
        return open_(request)

    def reopen(request: HttpRequest) -> Handler:
        found.append(request.caller.tenant)
        return open_(request)

    world.application.open, world.application.reopen = open_for_one, reopen
    for _ in range(3):
        client.receive(ask("/echo", b"abc"))
    assert found == ["one", "one"]
    assert world.application.seen == [b"abc"] * 3


def test_a_header_that_was_refused_is_not_recognised(world: Any, answers: Any, ask: Any) -> None:
    client = world.connect()
    world.application.reopen = None
    for _ in range(3):
        client.receive(ask("/nowhere", b"abc"))
    assert [answer.status for answer in answers(client.written)] == [404] * 3


def test_a_recognised_header_with_more_or_less_than_its_body_is_read_as_any(world: Any, ask: Any) -> None:
    client = world.connect()
    request = ask("/echo", b"abc")
    for piece in (request, request[:-1], b"c", request + request, request[:20], request[20:], request):
        client.receive(piece)
    assert world.application.seen == [b"abc"] * 6


def test_bodies_of_recognised_headers_count_against_the_bound_of_all(make_world: Any, answers: Any, ask: Any) -> None:
    world = make_world(HttpLimits(buffered_bytes=700))
    waiting, client = world.connect(), world.connect()
    for one in (waiting, client):
        one.receive(ask("/later", b"a" * 400))
        world.application.replies.pop()()
    waiting.receive(ask("/later", b"b" * 400))
    client.receive(ask("/later", b"c" * 400))
    assert [answer.status for answer in answers(client.written)] == [200, 503]
    world.application.replies.pop()()
    assert world.hub.buffered == 0


def _refuse(request: Any) -> Any:
    raise RequestError("No.", code="forbidden")
