from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from hasten.serve.http.limits import HttpLimits


def test_requests_sent_ahead_are_answered_one_by_one_in_order(world: Any, ask: Any, answers: Any) -> None:
    client = world.connect()
    client.receive(ask("/later", b"1") + ask("/echo", b"2") + ask("/later", b"3"))
    assert client.written == b""
    assert world.application.seen == [b"1"], "the second waits for its turn"
    world.application.replies[0]()
    world.application.replies[1]()
    assert [answer.body for answer in answers(client.written)] == [b"later:1", b"2", b"later:3"]
    assert not client.closed


def test_a_thousand_requests_in_one_piece_are_answered_without_recursion(world: Any, ask: Any, answers: Any) -> None:
    client = world.connect()
    client.receive(ask("/echo", b"x") * 2000)
    assert len(answers(client.written)) == 2000


def test_a_client_that_sends_far_ahead_has_to_wait(make_world: Any, ask: Any, answers: Any) -> None:
    world = make_world(HttpLimits(pipelined=2))
    client = world.connect()
    client.receive(ask("/later", b"0") + ask("/echo", b"1") + ask("/echo", b"2"))
    assert not client.reading
    world.after(9.9)
    assert not client.closed, "the pause is not the client's fault"
    world.application.replies[0]()
    assert client.reading
    assert len(answers(client.written)) == 3


def test_a_client_that_leaves_gives_its_place_back(world: Any, ask: Any) -> None:
    client = world.connect()
    client.receive(ask("/later", b"1") + ask("/later", b"2"))
    client.hang_up()
    assert world.application.given_up == 1
    assert world.application.seen == [b"1"]
    assert world.hub.buffered == 0
    assert len(world.hub) == 0


def test_what_is_held_is_counted_and_given_back(world: Any, ask: Any) -> None:
    client = world.connect()
    client.receive(ask("/later", b"12345") + ask("/echo", b"678") + ask("/echo", b"12345")[:-2])
    assert world.hub.buffered == 11
    world.application.replies[0]()
    assert world.hub.buffered == 3
    client.hang_up()
    assert world.hub.buffered == 0


def test_all_bodies_together_have_a_bound(make_world: Any, ask: Any, answers: Any) -> None:
    world = make_world(HttpLimits(buffered_bytes=1500))
    first, second = world.connect(), world.connect()
    first.receive(ask("/later", bytes(900)))
    second.receive(ask("/echo", bytes(900)))
    [refused] = answers(second.written)
    assert refused.status == 503
    assert refused.headers["retry-after"] == "1"
    world.application.replies[0]()
    assert answers(first.written)[0].status == 200
    assert world.hub.buffered == 0


def test_a_connection_closes_after_the_answer_where_the_client_says_so(world: Any, ask: Any, answers: Any) -> None:
    client = world.connect()
    client.receive(ask("/echo", b"1", "Connection: close"))
    [answer] = answers(client.written)
    assert answer.headers["connection"] == "close"
    assert client.closed


def test_http_1_0_is_kept_open_on_request_only(world: Any, answers: Any) -> None:
    plain, kept = world.connect(), world.connect()
    plain.receive(b"GET /echo HTTP/1.0\r\nHost: localhost\r\n\r\n")
    kept.receive(b"GET /echo HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")
    assert plain.closed and not kept.closed
    assert answers(kept.written)[0].headers["connection"] == "keep-alive"


def test_an_answer_to_head_tells_the_length_and_sends_nothing(world: Any, ask: Any) -> None:
    client = world.connect()
    client.receive(ask("/echo", b"12345", method="HEAD"))
    assert b"content-length: 5\r\n" in client.written
    assert client.written.endswith(b"\r\n\r\n")


def test_the_body_is_asked_for_when_it_is_the_turn_of_its_request(world: Any, ask: Any, answers: Any) -> None:
    client = world.connect()
    client.receive(ask("/later", b"1") + ask("/echo", b"2", "Expect: 100-continue")[:-1])
    assert client.written == b""
    world.application.replies[0]()
    assert client.written.endswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    client.receive(b"2")
    assert [answer.body for answer in answers(client.written)] == [b"later:1", b"2"]


def test_a_bug_is_answered_with_an_id_that_the_log_has_too(
    world: Any, ask: Any, answers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = world.connect()
    with caplog.at_level(logging.ERROR, "hasten.serve"):
        client.receive(ask("/bug") + ask("/echo", b"on"))
    bug, after = answers(client.written)
    assert (bug.status, after.status) == (500, 200)
    words = json.loads(bug.body)["error"]
    [record] = caplog.records
    assert record.getMessage().split()[1] in words
    assert "secret" not in words and record.exc_info is not None


@pytest.mark.parametrize(
    ("sent", "within_s", "code"),
    [
        (b"", 10.0, None),
        (b"POST /echo HT", 10.0, 408),
        (b"POST /echo HTTP/1.1\r\nHost: localhost\r\nX: ", 10.0, 408),
        (b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n12", 30.0, 408),
        (b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12", 30.0, 408),
        (b"POST /echo HTTP/1.1\r\nHost: localhost\r\n\r\n", 75.0, 200),
    ],
    ids=["silent", "line", "header", "body", "chunks", "idle"],
)
def test_nobody_is_waited_for_longer_than_allowed(
    world: Any, answers: Any, sent: bytes, within_s: float, code: int | None
) -> None:
    client = world.connect()
    if sent:
        client.receive(sent)
    world.after(within_s - 0.1)
    assert not client.closed and not client.ended
    world.after(0.1)
    assert client.closed or client.ended
    assert [answer.status for answer in answers(client.written)] == ([] if code is None else [code])
    world.after(2.0)
    assert client.closed


def test_a_byte_now_and_then_does_not_move_the_deadline(world: Any) -> None:
    client = world.connect()
    for byte in b"POST /ec":
        if not client.ended:
            client.receive(bytes([byte]))
            world.after(5.0)
    assert client.ended
    assert b" 408 " in client.written


def test_a_request_that_is_being_answered_has_no_deadline_here(world: Any, ask: Any) -> None:
    client = world.connect()
    client.receive(ask("/later", b"1"))
    world.after(1000.0)
    assert not client.closed


def test_a_client_that_does_not_read_is_left_alone_for_a_while_and_then_cut_off(world: Any, ask: Any) -> None:
    slow, quick = world.connect(), world.connect()
    for client in (slow, quick):
        client.receive(ask("/echo", b"1"))
        client.protocol.pause_writing()
        client.receive(ask("/echo", b"2"))
    assert world.application.seen == [b"1", b"1"], "nothing more is answered to who does not read"
    world.after(29.0)
    quick.protocol.resume_writing()
    assert world.application.seen == [b"1", b"1", b"2"]
    world.after(1.0)
    assert slow.aborted and not quick.closed


def test_answers_count_as_unread_until_their_client_reads_them_or_is_gone(world: Any, ask: Any) -> None:
    slow, gone = world.connect(), world.connect()
    for client in (slow, gone):
        client.receive(ask("/later", b"1"))
        client.stall()
    for reply in world.application.replies:
        reply()
    assert world.hub.unread.bytes == slow.unread + gone.unread > slow.unread > 0
    gone.hang_up()
    assert world.hub.unread.bytes == slow.unread
    slow.unread = 5
    world.after(0.25)
    assert world.hub.unread.bytes == 5, "a client that reads slowly is seen to"
    slow.catch_up()
    assert world.hub.unread.bytes == 0


def test_answers_that_a_socket_takes_at_once_are_not_counted(world: Any, ask: Any) -> None:
    client = world.connect()
    client.receive(ask("/echo", bytes(1000)))
    assert world.hub.unread.bytes == 0


def test_a_client_that_does_not_read_the_last_answer_is_cut_off_too(world: Any, ask: Any) -> None:
    client = world.connect()
    client.receive(ask("/echo", b"1", "Connection: close"))
    world.after(30.0)
    assert client.aborted


def test_after_a_refusal_the_client_may_finish_sending_and_then_is_gone(world: Any, answers: Any) -> None:
    client = world.connect()
    client.receive(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n")
    assert [answer.status for answer in answers(client.written)] == [413]
    assert client.ended and not client.closed
    client.receive(bytes(50_000))
    world.after(1.9)
    assert not client.closed
    world.after(0.1)
    assert client.closed


def test_one_connection_too_many_is_told_so(make_world: Any, answers: Any, ask: Any) -> None:
    world = make_world(HttpLimits(connections=2))
    first, _, third = world.connect(), world.connect(), world.connect()
    assert [answer.status for answer in answers(third.written)] == [503]
    third.receive(ask("/echo", b"1"))
    third.hang_up()
    assert world.application.seen == []
    _, far_too_many = world.connect(), [world.connect() for _ in range(3)]
    assert far_too_many[-1].aborted
    first.receive(ask("/echo", b"1"))
    assert answers(first.written)[0].status == 200


def test_draining_asks_each_client_to_come_back_elsewhere(world: Any, ask: Any, answers: Any) -> None:
    idle, busy, sending = world.connect(), world.connect(), world.connect()
    busy.receive(ask("/later", b"1"))
    sending.receive(ask("/echo", b"2")[:-1])
    world.hub.draining = True
    late = world.connect()
    late.receive(ask("/echo", b"3"))
    assert late.closed
    for client in (idle, busy, sending):
        client.protocol.finish()
    assert idle.closed and not busy.closed and not sending.closed
    world.application.replies[0]()
    sending.receive(b"2")
    for client in (late, busy, sending):
        [answer] = answers(client.written)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.closed


def test_an_offer_of_another_protocol_is_answered_in_this_one(world: Any, answers: Any) -> None:
    client = world.connect()
    client.receive(
        b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n"
    )
    assert [answer.status for answer in answers(client.written)] == [200]
    world.after(2.0)
    assert client.closed
