"""Connections without sockets: the test completes what the application began, moves the clock, and is the client."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hasten.errors import RequestError
from hasten.serve.http.hub import Hub
from hasten.serve.http.limits import HttpLimits
from hasten.serve.http.message import Cancel, Handler, HttpRequest, Reply, json_answer
from hasten.testing import FakeTransport, ManualClock

BODY_LIMIT = 1000


class Answer:
    """One answer as a client reads it."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Application:
    """`/echo` gives the body back at once, `/later` when the test calls `replies`; `/bug` fails, and nothing else is
    there. `seen` are the bodies that were handed over, `given_up` counts cancellations. A long body that begins with
    "no" is refused before it is there.
    """

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.replies: list[Callable[[], None]] = []
        self.given_up = 0
        self._handlers: dict[bytes, Handler] = {b"/echo": self._echo, b"/later": self._later, b"/bug": self._bug}

    def open(self, request: HttpRequest) -> Handler:
        handler = self._handlers.get(request.target)
        if handler is None:
            raise RequestError("No.", code="not_found")
        return handler

    def reopen(self, request: HttpRequest) -> Handler:
        return self.open(request)

    def turn_away(self, request: HttpRequest, beginning: bytes | memoryview) -> Handler | None:
        assert request.target in self._handlers, "what `open` refused is not asked about"
        return self._full if bytes(beginning[:2]) == b"no" else None

    def _full(self, request: HttpRequest, reply: Reply) -> None:
        reply(429, json_answer(b"full"))

    def _echo(self, request: HttpRequest, reply: Reply) -> None:
        self.seen.append(request.body)
        reply(200, json_answer(bytes(request.body)))

    def _later(self, request: HttpRequest, reply: Reply) -> Cancel:
        self.seen.append(request.body)
        self.replies.append(lambda: reply(200, json_answer(b"later:" + request.body)))
        return self._give_up

    def _give_up(self) -> None:
        self.given_up += 1

    def _bug(self, request: HttpRequest, reply: Reply) -> None:
        raise ZeroDivisionError("a secret of /usr/lib")


class World:
    """A hub, and as many clients as the test wants."""

    def __init__(self, limits: HttpLimits | None = None, body_limit: int = BODY_LIMIT) -> None:
        self.clock = ManualClock()
        self.application = Application()
        self.hub = Hub(self.application, body_limit, limits, clock=self.clock.now)

    def connect(self) -> FakeTransport:
        return FakeTransport(self.hub.connection())

    def after(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.hub.sweep()


def answers(written: bytes) -> list[Answer]:
    """Take apart what a server wrote, interim answers left out."""
    found: list[Answer] = []
    while written:
        head, _, rest = written.partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        status, size = int(line.split()[1]), int(headers.get("content-length", "0"))
        if status >= 200:
            assert len(rest) >= size, "the answer is cut off"
            found.append(Answer(status, headers, rest[:size]))
        written = rest[size:]
    return found


def ask(target: str = "/echo", body: bytes = b"", *lines: str, method: str = "POST") -> bytes:
    """A request with a length."""
    head = [f"{method} {target} HTTP/1.1", "Host: localhost", *lines]
    if body:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def make_world() -> type[World]:
    return World


@pytest.fixture(scope="session", name="answers")
def _answers() -> Callable[[bytes], list[Answer]]:
    return answers


@pytest.fixture(scope="session", name="ask")
def _ask() -> Callable[..., bytes]:
    return ask
