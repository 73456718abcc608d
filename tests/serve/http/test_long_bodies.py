from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasten.errors import RequestError
from hasten.serve.http.limits import HttpLimits

LONG = bytes(range(251)) * 2000
LIMIT = 2**20


@pytest.fixture
def world(make_world: Any) -> Any:
    return make_world(body_limit=LIMIT)


def is_straight(client: Any) -> bool:
    """Whether the next bytes go to where they stay."""
    if isinstance(client.protocol, asyncio.Protocol):
        return False
    return client.protocol.get_buffer(-1) is not client.protocol._room


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, len(LONG) + 300), max_size=6), ahead=st.integers(0, 2), behind=st.integers(0, 2))
def test_a_long_body_cut_anywhere_arrives_as_it_was_sent_between_its_neighbours(
    make_world: Any, ask: Any, cuts: list[int], ahead: int, behind: int
) -> None:
    world = make_world(body_limit=LIMIT)
    client = world.connect()
    sent = ask("/echo", b"a") * ahead + ask("/echo", LONG) + ask("/echo", b"b") * behind
    places = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]
    for start, stop in itertools.pairwise(places):
        client.receive(sent[start:stop])
    assert [bytes(body) for body in world.application.seen] == [b"a"] * ahead + [LONG] + [b"b"] * behind
    assert world.hub.buffered == 0
    assert not client.closed and not is_straight(client)


def test_the_rest_of_a_long_body_is_received_straight(world: Any, ask: Any, answers: Any) -> None:
    client = world.connect()
    sent = ask("/echo", LONG)
    client.receive(sent[:1000])
    assert is_straight(client)
    client.receive(sent[1000:-1])
    assert world.application.seen == [] and world.hub.buffered == len(LONG) - 1
    client.receive(sent[-1:] + ask("/echo", b"next"))
    assert [answer.body for answer in answers(client.written)] == [LONG, b"next"]


@pytest.mark.parametrize("first", [1000, 2**20], ids=["in parts", "whole"])
def test_of_the_next_long_body_only_the_beginning_is_copied(world: Any, ask: Any, answers: Any, first: int) -> None:
    client = world.connect()
    data, copied = ask("/echo", LONG), list[int]()
    client.receive(data[:first])
    client.receive(data[first:])
    while data:
        room = client.protocol.get_buffer(-1)
        part, data = data[: len(room)], data[len(room) :]
        room[: len(part)] = part
        copied += [len(part)] * (not is_straight(client))
        client.protocol.buffer_updated(len(part))
    assert [answer.body for answer in answers(client.written)] == [LONG, LONG]
    assert copied == [len(world.hub.room)]


@pytest.mark.parametrize("first", [1000, 2**20], ids=["in parts", "whole"])
def test_after_a_short_request_the_transport_finds_the_memory_again(
    world: Any, ask: Any, answers: Any, first: int
) -> None:
    client = world.connect()
    own = client.protocol
    for body in (LONG, b"a", LONG, LONG, b"b", b"c"):
        client.receive(ask("/echo", body)[:first])
        client.receive(ask("/echo", body)[first:])
        assert (client.protocol is own) == (len(body) < 2)
    assert [answer.body for answer in answers(client.written)] == [LONG, b"a", LONG, LONG, b"b", b"c"]


def test_a_long_body_may_wait_behind_other_answers(world: Any, ask: Any, answers: Any) -> None:
    client = world.connect()
    client.receive(ask("/later", b"1") + ask("/echo", LONG)[:500])
    client.receive(ask("/echo", LONG)[500:])
    assert client.written == b""
    world.application.replies[0]()
    assert [answer.body for answer in answers(client.written)] == [b"later:1", LONG]


def test_the_last_request_of_a_connection_may_have_a_long_body(world: Any, ask: Any, answers: Any) -> None:
    client = world.connect()
    sent = ask("/echo", LONG, "Connection: close")
    client.receive(sent[:500])
    client.receive(sent[500:])
    assert answers(client.written)[0].body == LONG
    assert client.closed


def test_a_long_body_that_does_not_arrive_in_time_is_refused(world: Any, ask: Any, answers: Any) -> None:
    client = world.connect()
    client.receive(ask("/echo", LONG)[:5000])
    world.after(1000)
    assert answers(client.written)[0].status == 408
    assert world.hub.buffered == 0
    client.receive(LONG)
    assert world.application.seen == []


def test_a_client_that_leaves_within_a_long_body_gives_its_place_back(world: Any, ask: Any) -> None:
    client = world.connect()
    client.receive(ask("/echo", LONG)[:5000])
    client.hang_up()
    assert world.hub.buffered == 0 and len(world.hub) == 0


def test_long_bodies_count_against_the_bound_of_all(make_world: Any, ask: Any, answers: Any) -> None:
    world = make_world(HttpLimits(buffered_bytes=len(LONG) + 1000), body_limit=LIMIT)
    first, second = world.connect(), world.connect()
    first.receive(ask("/echo", LONG)[:-1])
    second.receive(ask("/echo", LONG)[:500])
    second.receive(LONG[:2000])
    assert answers(second.written)[0].status == 503
    first.receive(LONG[-1:])
    assert answers(first.written)[0].body == LONG
    assert world.hub.buffered == 0


def test_a_long_body_waits_for_the_word_that_its_client_expects(world: Any, ask: Any, answers: Any) -> None:
    client = world.connect()
    head = ask("/echo", LONG, "Expect: 100-continue")[: -len(LONG)]
    client.receive(head)
    assert client.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.receive(LONG)
    assert answers(client.written)[0].body == LONG


REFUSED = b"no" + LONG


def test_a_long_body_is_refused_by_its_beginning_and_the_rest_goes_by(world: Any, ask: Any, answers: Any) -> None:
    client = world.connect()
    sent = ask("/echo", REFUSED)
    client.receive(sent[:1000])
    assert [answer.status for answer in answers(client.written)] == [429]
    client.receive(sent[1000:] + ask("/echo", b"next"))
    assert [answer.body for answer in answers(client.written)] == [b"full", b"next"]
    assert world.application.seen == [b"next"] and world.hub.buffered == 0
    assert not client.closed and not is_straight(client)


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, len(LONG) + 300), max_size=6), ahead=st.integers(0, 2), behind=st.integers(0, 2))
def test_a_refused_body_cut_anywhere_disturbs_no_neighbour(
    make_world: Any, ask: Any, answers: Any, cuts: list[int], ahead: int, behind: int
) -> None:
    world = make_world(body_limit=LIMIT)
    client = world.connect()
    sent = ask("/echo", b"a") * ahead + ask("/echo", REFUSED) + ask("/echo", b"b") * behind
    # Its header and its beginning come together; what is there whole is not refused beforehand.
    first = len(ask("/echo", b"a")) * ahead + 1000
    places = [0, *sorted({first, *(min(max(cut, first), len(sent)) for cut in cuts)}), len(sent)]
    for start, stop in itertools.pairwise(places):
        client.receive(sent[start:stop])
    assert [answer.body for answer in answers(client.written)] == [b"a"] * ahead + [b"full"] + [b"b"] * behind
    assert world.hub.buffered == 0
    assert not client.closed and not is_straight(client)


def test_a_refusal_waits_behind_other_answers(world: Any, ask: Any, answers: Any) -> None:
    client = world.connect()
    client.receive(ask("/later", b"1") + ask("/echo", REFUSED)[:500])
    client.receive(ask("/echo", REFUSED)[500:])
    assert client.written == b""
    world.application.replies[0]()
    assert [answer.body for answer in answers(client.written)] == [b"later:1", b"full"]


def test_after_a_refusal_of_the_last_request_nothing_more_is_heard(world: Any, ask: Any, answers: Any) -> None:
    client = world.connect()
    sent = ask("/echo", REFUSED, "Connection: close")
    client.receive(sent[:500])
    assert [answer.status for answer in answers(client.written)] == [429]
    assert client.ended and not client.closed
    client.receive(sent[500:])
    world.after(1000)
    assert client.closed


def test_the_rest_of_a_refused_body_that_does_not_come_ends_the_connection(world: Any, ask: Any, answers: Any) -> None:
    client = world.connect()
    client.receive(ask("/echo", REFUSED)[:5000])
    world.after(1000)
    assert [answer.status for answer in answers(client.written)] == [429]
    assert client.ended
    world.after(1000)
    assert client.closed


def test_while_the_server_drains_a_refused_body_is_not_waited_for(world: Any, ask: Any, answers: Any) -> None:
    client = world.connect()
    world.hub.draining = True
    client.receive(ask("/echo", REFUSED)[:5000])
    assert answers(client.written)[0].headers["connection"] == "close"
    assert client.ended


def test_after_a_refused_body_a_connection_may_rest_as_long_as_any(world: Any, ask: Any) -> None:
    client = world.connect()
    client.receive(ask("/echo", REFUSED)[:5000])
    client.receive(ask("/echo", REFUSED)[5000:])
    world.after(60)
    assert not client.closed
    world.after(60)
    assert client.closed


def test_what_its_head_refused_is_not_asked_about_again(world: Any, ask: Any, answers: Any) -> None:
    """The largest body that is swallowed is also the smallest that is received straight."""
    body = bytes(64 * 2**10)
    client = world.connect()
    sent = ask("/missing", body)
    client.receive(sent[: -len(body)])
    client.receive(body + ask("/echo", b"next"))
    assert [answer.status for answer in answers(client.written)] == [404, 200]
    assert world.hub.buffered == 0


# The header of a long body that came before is recognised by its bytes, too.

OTHER = LONG[::-1]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_long_and_short_bodies_in_any_order_and_cut_anywhere_arrive_as_they_were_sent(
    make_world: Any, ask: Any, answers: Any, data: st.DataObject
) -> None:
    bodies = data.draw(st.lists(st.sampled_from([LONG, OTHER, REFUSED, b"short"]), min_size=2, max_size=6))
    world = make_world(body_limit=LIMIT)
    client = world.connect()
    for body in bodies:
        sent = ask("/echo", body)
        head = len(sent) - len(body)
        # With a beginning that tells who is refused; what is there whole is not refused beforehand.
        first = min(head + data.draw(st.sampled_from([2, 500, 30_000])), len(sent))
        within = [] if body == REFUSED else data.draw(st.lists(st.integers(1, first), max_size=2))
        cuts = data.draw(st.lists(st.integers(first, len(sent)), max_size=3))
        for start, stop in itertools.pairwise([0, *sorted(within), first, *sorted(cuts), len(sent)]):
            client.receive(sent[start:stop])
        assert world.hub.buffered == 0
    wanted = [b"full" if body == REFUSED else body for body in bodies]
    assert [answer.body for answer in answers(client.written)] == wanted
    assert not client.closed and not is_straight(client)


@pytest.fixture
def recognised(world: Any, ask: Any, answers: Any) -> Any:
    """A client whose header is known."""
    client = world.connect()
    for cut in (1000, 1000):
        client.receive(ask("/echo", LONG)[:cut])
        client.receive(ask("/echo", LONG)[cut:])
    assert [answer.status for answer in answers(client.written)] == [200, 200]
    return client


def test_whether_a_recognised_long_one_may_pass_is_decided_anew(
    world: Any, ask: Any, answers: Any, recognised: Any
) -> None:
    def refuse(request: Any) -> Any:
        raise RequestError("No.", code="forbidden")

    world.application.reopen = refuse
    recognised.receive(ask("/echo", LONG)[:1000])
    assert [answer.status for answer in answers(recognised.written)] == [200, 200, 403]
    assert recognised.ended and world.hub.buffered == 0


def test_a_bug_found_by_a_recognised_header_is_an_error_of_the_server(
    world: Any, ask: Any, answers: Any, recognised: Any
) -> None:
    world.application.reopen = None
    recognised.receive(ask("/echo", LONG)[:1000])
    assert [answer.status for answer in answers(recognised.written)] == [200, 200, 500]


def test_a_recognised_long_one_obeys_a_limit_that_was_lowered(
    world: Any, ask: Any, answers: Any, recognised: Any
) -> None:
    world.hub.body_limit = len(LONG) - 1
    recognised.receive(ask("/echo", LONG)[:1000])
    assert [answer.status for answer in answers(recognised.written)] == [200, 200, 413]


def test_the_beginning_of_a_recognised_long_one_counts_against_the_bound_of_all(
    world: Any, ask: Any, answers: Any, recognised: Any
) -> None:
    world.hub.buffered = world.hub.limits.buffered_bytes
    recognised.receive(ask("/echo", LONG)[:1000])
    assert [answer.status for answer in answers(recognised.written)] == [200, 200, 503]
    assert world.hub.buffered == world.hub.limits.buffered_bytes


def test_a_recognised_long_one_has_its_time_and_no_more(world: Any, ask: Any, answers: Any, recognised: Any) -> None:
    recognised.receive(ask("/echo", LONG)[:1000])
    world.after(world.hub.limits.body_s - 1)
    assert not recognised.ended
    world.after(2)
    assert [answer.status for answer in answers(recognised.written)] == [200, 200, 408]
    assert world.hub.buffered == 0


def test_a_long_header_that_is_known_is_not_opened_anew(world: Any, ask: Any, answers: Any, recognised: Any) -> None:
    world.application.reopen, world.application.open = world.application.open, None
    for _ in range(2):
        recognised.receive(ask("/echo", OTHER)[:1000])
        recognised.receive(ask("/echo", OTHER)[1000:])
    assert [answer.body for answer in answers(recognised.written)][2:] == [OTHER, OTHER]


def test_what_others_left_where_it_was_read_is_no_part_of_a_header(world: Any, ask: Any, answers: Any) -> None:
    """All clients with long bodies read to the same place, one after the other."""
    one, other = world.connect(), world.connect()
    sent = ask("/echo", LONG)
    for client in (one, other, one, other):
        client.receive(sent[:1000])
        client.receive(sent[1000:])
    for cut in (1, 20, 40):
        for client in (one, other):
            # The whole header lies there from the last one.
            client.receive(sent[:cut])
            assert world.hub.buffered == 0
            client.receive(sent[cut:1000])
            client.receive(sent[1000:])
    assert [bytes(body) for body in world.application.seen] == [LONG] * 10
    assert world.hub.buffered == 0


@pytest.mark.parametrize("known", [False, True])
def test_a_request_that_begins_at_the_end_of_a_rest_is_not_cut_off(
    world: Any, ask: Any, answers: Any, known: bool
) -> None:
    client = world.connect()
    for _ in range(2):
        client.receive(ask("/echo", LONG if known else b"short")[:1000])
        client.receive(ask("/echo", LONG)[1000:] if known else b"")
    world.after(world.hub.limits.idle_s - 1)
    client.receive(ask("/echo", LONG)[:1000])
    world.after(10)
    assert not client.closed
    client.receive(ask("/echo", LONG)[1000:])
    assert answers(client.written)[-1].body == LONG
    world.after(world.hub.limits.idle_s + 1)
    assert client.closed


def test_a_refused_body_that_is_swallowed_keeps_its_connection_where_its_header_is_known(
    world: Any, ask: Any, answers: Any
) -> None:
    def refuse(request: Any) -> Any:
        raise RequestError("Slow down.", code="rate_limited")

    client, body = world.connect(), bytes(60 * 2**10)
    for _ in range(2):
        client.receive(ask("/echo", body)[:1000])
        client.receive(ask("/echo", body)[1000:])
    world.application.open = world.application.reopen = refuse
    client.receive(ask("/echo", body)[:1000])
    client.receive(ask("/echo", body)[1000:])
    assert [answer.status for answer in answers(client.written)][2:] == [429]
    assert not client.ended and world.hub.buffered == 0
