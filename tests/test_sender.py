"""A load from one thread: what was sent, what came back, and when it was due."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from hasten.sender import Sender

OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"


class Server:
    """Answers each request with what `answer` makes of its number; where that is empty it closes the connection."""

    def __init__(self) -> None:
        self.names: list[int] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.answer: Callable[[int], bytes] = lambda number: OK % (2, b"{}")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while stream.readline():
                fields = dict(line.split(b": ") for line in iter(lambda: stream.readline().strip(), b""))
                self.bodies.append(stream.read(int(fields[b"content-length"])))
                self.names.append(int(fields[b"x-request-id"]))
                said = self.answer(self.names[-1])
                if not said:
                    return
                connection.sendall(said)


@contextmanager
def sending(bodies: list[bytes]) -> Generator[tuple[Server, Sender]]:
    server = Server()
    sender = Sender(server.address, "/v2/models/m/infer", [(body, {"content-type": "x"}) for body in bodies])
    try:
        yield server, sender
    finally:
        sender.close()
        server.close()


def test_every_request_of_an_open_loop_is_sent_and_answered_under_its_number() -> None:
    with sending([b"a", b"b"]) as (server, sender):
        calls = sender.open_loop([0.0, 0.0, 0.002])
        assert [call.due_s for call in calls] == [0.0, 0.0, 0.002]
        assert all(call.sent_s is not None and call.done_s is not None and call.due_s <= call.sent_s for call in calls)
        assert sorted(zip(server.names, server.bodies, strict=True)) == [(0, b"a"), (1, b"b"), (2, b"a")]
        assert sender.sent == 3


def test_numbers_go_on_from_one_run_to_the_next() -> None:
    with sending([b"a"]) as (server, sender):
        sender.open_loop([0.0])
        sender.open_loop([0.0])
        assert server.names == [0, 1]
        assert server.connections == 1


def test_bodies_and_answers_larger_than_a_buffer_arrive_whole() -> None:
    with sending([b"x" * 5_000_000]) as (server, sender):
        server.answer = lambda number: OK % (3_000_000, b"y" * 3_000_000)
        first, second = sender.open_loop([0.0, 0.0])
        assert (first.failure, second.failure) == (None, None)
        assert [len(body) for body in server.bodies] == [5_000_000] * 2


def test_a_refusal_is_told_by_its_code_and_the_connection_stays() -> None:
    with sending([b"a"]) as (server, sender):
        body = b'{"error":"no","code":"overloaded"}'
        refused = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        server.answer = lambda number: OK % (0, b"") if number else refused
        [first], [second] = sender.open_loop([0.0]), sender.open_loop([0.0])
        assert (first.failure, second.failure) == ("overloaded", None)
        assert server.connections == 1


def test_a_refusal_in_chunks_is_read_too() -> None:
    with sending([b"a"]) as (server, sender):
        chunks = b'1c\r\n{"error":"no","code":"overlo\r\n6\r\naded"}\r\n0\r\n\r\n'
        server.answer = lambda number: b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
        assert [call.failure for call in sender.open_loop([0.0, 0.001])] == ["overloaded"] * 2


def test_a_connection_that_the_server_takes_back_is_not_used_again() -> None:
    with sending([b"a"]) as (server, sender):
        server.answer = lambda number: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        for _ in range(3):
            [call] = sender.open_loop([0.0])
            assert call.failure is None
        assert server.connections == 3


def test_what_is_no_http_fails_its_request_only() -> None:
    with sending([b"a"]) as (server, sender):
        server.answer = lambda number: OK % (0, b"") if number else b"SSH-2.0-OpenSSH\r\n"
        assert [call.failure for call in sender.open_loop([0.0, 0.05])] == ["connection", None]


def test_a_connection_that_is_lost_fails_its_request_only() -> None:
    with sending([b"a"]) as (server, sender):
        server.answer = lambda number: OK % (0, b"") if number else b""
        assert [call.failure for call in sender.open_loop([0.0, 0.001])] == ["connection", None]


def test_what_is_not_answered_in_time_is_given_up() -> None:
    with sending([b"a"]) as (server, sender):
        server.answer = lambda number: OK % (5, b"") + b"ab"
        [call] = sender.open_loop([0.0], patience_s=0.05)
        assert (call.done_s, call.failure) == (None, None)


def test_a_closed_loop_keeps_its_callers_busy_and_waits_for_the_last() -> None:
    with sending([b"a"]) as (server, sender):
        calls = sender.closed_loop(3, 0.02)
        assert len(calls) == len(server.names) >= 3
        assert all(call.done_s is not None for call in calls)


def test_the_collector_leaves_alone_what_lives_while_a_load_lasts() -> None:
    with sending([b"{}"]) as (server, sender):
        frozen: list[int] = []
        server.answer = lambda number: frozen.append(gc.get_freeze_count()) or OK % (2, b"{}")
        sender.open_loop([0.0, 0.001])
        sender.closed_loop(1, 0.02)
        assert min(frozen) > 0
        assert gc.get_freeze_count() == 0
