"""Sends requests over one thread and tells what became of each: the load of a rehearsal, where server and client share
a small machine.

`hasten.measure.traffic` has a thread for each request under way, which any target can be called from. Threads that hand
over to each other cost several times what a request of a small model costs its server, and on a machine of few cores
they take it from the engine. Here one loop holds all connections, and the one that was used last is used next. llhttp
(through httptools, as in the server that it asks) reads the answers: in two thirds of the time of string methods of
Python. For one thread.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import httptools

from hasten.errors import HastenError, RequestError
from hasten.heap import settled
from hasten.measure.outcome import Call
from hasten.wire.oip_client import failure

__all__ = ["Sender"]

_MOST_LINES = 256
_PATIENCE_S = 30.0
# Room for a whole request in the kernel, so that one call hands it over.
_ROOM = 2**21


class Sender:
    """Requests to one address, `bodies` in turn. Every request is named by its number (`x-request-id`), counted from 0
    over the life of the sender, so that it is found again in the log of the server. Numbers of a run are consecutive.
    """

    def __init__(self, address: tuple[str, int], path: str, bodies: Sequence[tuple[bytes, dict[str, str]]]) -> None:
        self._address = address
        self._requests = [(_head(address, path, len(body), headers), memoryview(body)) for body, headers in bodies]
        self._free: list[_Line] = []
        self._busy: dict[socket.socket, _Line] = {}
        self._room = bytearray(2**18)
        self.sent = 0
        self.error: HastenError | None = None

    def open_loop(self, due: Sequence[float], *, patience_s: float = _PATIENCE_S) -> list[Call]:
        """Send request i `due[i]` seconds from now, whatever became of those before; the log in order of `due`.

        Times are seconds from the start. Returns when all are answered, or `patience_s` after the last was due.
        """
        calls = [Call(due_s=at) for at in due]
        with settled():
            self._open_loop(calls, due, patience_s)
        return calls

    def closed_loop(self, callers: int, duration_s: float) -> list[Call]:
        """Keep so many requests under way for so long; the log in order of sending. The last ones are waited for."""
        with settled():
            return self._closed_loop(callers, duration_s)

    def close(self) -> None:
        """Close all connections."""
        self._abandon()
        while self._free:
            self._free.pop().socket.close()

    def _open_loop(self, calls: Sequence[Call], due: Sequence[float], patience_s: float) -> None:
        start = time.perf_counter()
        end, ahead, waiting = (due[-1] if due else 0.0) + patience_s, 0, deque[Call]()
        while (ahead < len(calls) or waiting or self._busy) and (now := time.perf_counter() - start) < end:
            while ahead < len(calls) and due[ahead] <= now:
                waiting.append(calls[ahead])
                ahead += 1
            while waiting and (line := self._line()) is not None:
                self._send(line, waiting.popleft(), start)
            until = due[ahead] if ahead < len(calls) else end
            self._wait(until - (time.perf_counter() - start), start)
        self._abandon()

    def _closed_loop(self, callers: int, duration_s: float) -> list[Call]:
        start = time.perf_counter()
        calls: list[Call] = []
        while (now := time.perf_counter() - start) < duration_s:
            while len(self._busy) < callers and (line := self._line()) is not None:
                calls.append(Call(due_s=time.perf_counter() - start))
                self._send(line, calls[-1], start)
            self._wait(duration_s - now, start)
        while self._busy and time.perf_counter() - start < duration_s + _PATIENCE_S:
            self._wait(_PATIENCE_S, start)
        self._abandon()
        return calls

    def _line(self) -> _Line | None:
        """A free connection, the warmest first; None where there are as many as may be."""
        if self._free:
            return self._free.pop()
        if len(self._busy) >= _MOST_LINES:
            return None
        try:
            return _Line(socket.create_connection(self._address, timeout=_PATIENCE_S))
        except OSError as error:
            raise RequestError(f"The server takes no connection: {error}.", code="connection") from error

    def _send(self, line: _Line, call: Call, start: float) -> None:
        head, body = self._requests[self.sent % len(self._requests)]
        call.sent_s = time.perf_counter() - start
        line.begin(call, b"%s%d\r\n\r\n" % (head, self.sent), body)
        self._busy[line.socket] = line
        self.sent += 1
        self._forward(line, start)

    def _forward(self, line: _Line, start: float) -> None:
        """Hand over what the kernel takes of a request."""
        try:
            line.push()
        except OSError as error:
            self._end(line, start, RequestError(f"The connection was lost: {error}.", code="connection"))

    def _wait(self, seconds: float, start: float) -> None:
        """Wait until something can be read or written, but no longer than `seconds`.

        By `select`: its clock is finer than that of `epoll`, which counts whole milliseconds.
        """
        writing = [line.socket for line in self._busy.values() if line.out]
        readable, writable, _ = select.select(list(self._busy), writing, [], max(0.0, seconds))
        for item in writable:
            self._forward(self._busy[item], start)
        for item in readable:
            line = self._busy.get(item)
            if line is None:
                continue
            try:
                if line.pull(self._room):
                    self._end(line, start, line.refusal())
            except OSError as error:
                self._end(line, start, RequestError(f"The connection was lost: {error}.", code="connection"))

    def _end(self, line: _Line, start: float, error: HastenError | None) -> None:
        line.call.done_s = time.perf_counter() - start
        del self._busy[line.socket]
        if error is not None:
            # The first error speaks for all, as in `hasten.measure.traffic`.
            line.call.failure, line.call.error = error.code, None if self.error else error
            self.error = self.error or error
        if (error is not None and error.code == "connection") or not line.lasts:
            line.socket.close()
        else:
            self._free.append(line)

    def _abandon(self) -> None:
        """Give up what was not answered in time: its answer must not be taken for that of a later request."""
        for line in self._busy.values():
            line.socket.close()
        self._busy.clear()


class _Line:
    """A connection with one request under way; `lasts` is whether it may take another after it. The parser calls the
    `on_` methods.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.out: list[memoryview] = []
        self.call = Call(due_s=0.0)
        self._parser: Any = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = b""
        self._complete = False
        self.lasts = True
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)

    def begin(self, call: Call, head: bytes, body: memoryview) -> None:
        self.call, self.out = call, [memoryview(head), body]
        self._headers, self._body, self._complete = [], b"", False

    def push(self) -> None:
        """Send what can be sent. Raises `OSError` where the connection is gone."""
        try:
            taken = self.socket.sendmsg(self.out)
        except BlockingIOError:
            return
        while self.out and taken >= len(self.out[0]):
            taken -= len(self.out.pop(0))
        if self.out:
            self.out[0] = self.out[0][taken:]

    def pull(self, room: bytearray) -> bool:
        """Read what is there; whether the answer is complete. Raises `OSError` where the connection is of no use."""
        try:
            got = self.socket.recv_into(room)
        except BlockingIOError:
            return False
        if not got:
            raise ConnectionResetError("the server closed it")
        try:
            self._parser.feed_data(memoryview(room)[:got])
        except httptools.HttpParserError as error:
            raise ConnectionAbortedError(f"its answer is no HTTP: {error}") from error
        return self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header line."""
        self._headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        """A part of the body, of which only errors are read."""
        if self._parser.get_status_code() != 200:
            self._body += body

    def on_message_complete(self) -> None:
        """An answer is complete, if it is not one that only announces another."""
        self._complete = self._parser.get_status_code() >= 200
        # Now or never: the parser forgets the header when it returns.
        self.lasts = self._parser.should_keep_alive()

    def refusal(self) -> HastenError | None:
        """What the answer says is wrong, if anything."""
        status = self._parser.get_status_code()
        if status == 200:
            return None
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._headers}
        return failure(status, headers, self._body)


def _head(address: tuple[str, int], path: str, length: int, headers: dict[str, str]) -> bytes:
    """All of a request's head but the number that ends it."""
    fields = {"host": f"{address[0]}:{address[1]}", "content-length": str(length), **headers}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "x-request-id: "]
    return "\r\n".join(lines).encode()
