"""Tries and their pauses: the rule alone, and the client on a server that refuses, stalls and resets."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hasten.client
from hasten.client import Retry
from hasten.errors import RequestError

X = {"x": np.zeros(1, np.float32)}
QUICK = Retry(first_s=0.001)


def error(code: str, retry_after_s: float | None = None) -> RequestError:
    return RequestError("no", code=code, retry_after_s=retry_after_s)


@pytest.mark.parametrize("code", ["overloaded", "unavailable", "connection"])
def test_what_may_succeed_later_is_tried_again(code: str) -> None:
    assert Retry().pause_s(error(code), tried=1, left_s=10, chance=0) == 0.05


@pytest.mark.parametrize("code", ["invalid", "not_found", "internal", "deadline", "timeout", "unauthenticated"])
def test_what_stays_so_is_not(code: str) -> None:
    assert Retry().pause_s(error(code), tried=1, left_s=10, chance=0) is None


def test_pauses_double_up_to_the_longest_and_chance_shortens_them() -> None:
    retry = Retry(most=9, first_s=1, longest_s=5)
    pauses = [retry.pause_s(error("overloaded"), tried=n, left_s=99, chance=0) for n in (1, 2, 3, 4, 9)]
    assert pauses == [1, 2, 4, 5, 5]
    assert retry.pause_s(error("overloaded"), tried=1, left_s=99, chance=1) == 0.5


def test_the_server_s_word_is_the_shortest_pause() -> None:
    retry = Retry(first_s=0.1)
    assert retry.pause_s(error("overloaded", 3.0), tried=1, left_s=10, chance=0) == 3.0
    assert retry.pause_s(error("overloaded", 3.0), tried=1, left_s=10, chance=1) == pytest.approx(3.05)


def test_nobody_waits_beyond_the_deadline_or_tries_for_ever() -> None:
    assert Retry().pause_s(error("overloaded", 3.0), tried=1, left_s=2.9, chance=0) is None
    assert Retry(most=2).pause_s(error("overloaded"), tried=3, left_s=99, chance=0) is None


def answer(status: int, body: bytes, *headers: str) -> Callable[[socket.socket], None]:
    head = "\r\n".join([f"HTTP/1.1 {status} X", f"content-length: {len(body)}", *headers, "", ""])
    return lambda connection: connection.sendall(head.encode() + body)


GOOD = answer(200, b'{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":[2]}]}')
SHED = answer(429, b'{"error":"The queue is full.","code":"overloaded"}', "retry-after: 0")


def hang_up(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def half(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc")
    connection.shutdown(socket.SHUT_RDWR)


def nonsense(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")
    connection.shutdown(socket.SHUT_RDWR)


def stall(connection: socket.socket) -> None:
    """Say nothing until the client gives up."""
    connection.recv(1)


def infer(style: str, url: str, retry: Retry = QUICK, timeout_s: float = 10.0) -> Any:
    [answer] = infer_again(style, url, 1, retry, timeout_s)
    return answer


def infer_again(style: str, url: str, times: int, retry: Retry, timeout_s: float = 10.0) -> list[Any]:
    if style == "blocking":
        with hasten.client.connect(url, retry=retry, timeout_s=timeout_s) as client:
            return [client.infer("m", X)["y"].tolist() for _ in range(times)]

    async def main() -> list[Any]:
        async with hasten.client.connect_async(url, retry=retry, timeout_s=timeout_s) as client:
            return [(await client.infer("m", X))["y"].tolist() for _ in range(times)]

    return asyncio.run(main())


BOTH = pytest.mark.parametrize("style", ["blocking", "asynchronous"])


@BOTH
@pytest.mark.parametrize("trouble", [SHED, hang_up, reset, half, nonsense])
def test_a_request_that_was_shed_or_lost_is_sent_again(scripted: Any, style: str, trouble: Any) -> None:
    server = scripted(trouble, trouble, GOOD)
    assert infer(style, server.url) == [2]
    assert len(server.requests) == 3


@BOTH
def test_an_invalid_request_is_sent_once(scripted: Any, style: str) -> None:
    server = scripted(answer(400, b'{"error":"bad","code":"invalid"}'), GOOD)
    with pytest.raises(RequestError, match="bad") as caught:
        infer(style, server.url)
    assert caught.value.code == "invalid"
    assert len(server.requests) == 1


@BOTH
def test_a_server_that_stalls_costs_no_more_than_the_timeout_and_is_not_asked_again(scripted: Any, style: str) -> None:
    server = scripted(stall, GOOD)
    with pytest.raises(RequestError) as caught:
        infer(style, server.url, timeout_s=0.2)
    assert caught.value.code == "timeout"
    assert len(server.requests) == 1


@BOTH
def test_a_pause_that_outlasts_the_timeout_ends_the_call_at_once(scripted: Any, style: str) -> None:
    server = scripted(answer(503, b'{"error":"draining","code":"unavailable"}', "retry-after: 60"), GOOD)
    with pytest.raises(RequestError, match="draining") as caught:
        infer(style, server.url, timeout_s=5)
    assert (caught.value.code, caught.value.retry_after_s) == ("unavailable", 60)


@BOTH
def test_an_error_that_is_not_json_gets_its_code_from_the_status(scripted: Any, style: str) -> None:
    server = scripted(answer(502, b"<html>bad gateway</html>"))
    with pytest.raises(RequestError) as caught:
        infer(style, server.url)
    assert caught.value.code == "http_502"


@BOTH
def test_a_connection_is_used_again_and_one_that_died_resting_costs_no_try(scripted: Any, style: str) -> None:
    def good_then_close(connection: socket.socket) -> None:
        GOOD(connection)
        connection.close()  # not only shut down: the next request, which may be on its way, must find nobody

    server = scripted(GOOD, GOOD, good_then_close, GOOD)
    assert infer_again(style, server.url, 4, Retry(most=0)) == [[2]] * 4
    assert server.connections == 2
    assert len(server.requests) == 4


def test_each_request_tells_the_server_how_long_somebody_waits(scripted: Any) -> None:
    server = scripted(GOOD)
    infer("blocking", server.url, timeout_s=7)
    assert b'"timeout":69' in server.requests[0] or b'"timeout":7000000' in server.requests[0]


def test_a_port_where_nobody_listens_is_a_connection_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}", f"grpc://127.0.0.1:{port}"):
        with pytest.raises(RequestError) as caught:
            infer("blocking", url, retry=Retry(most=0), timeout_s=5)
        assert caught.value.code == "connection"
