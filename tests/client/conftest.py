"""A real server over both protocols, and a scripted one that misbehaves as it is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from hasten.bundle.read import open_bundle
from hasten.serve.server import Front, Options, Running, serve_bundle

Act = Callable[[socket.socket], None]


class Scripted:
    """Takes connections and requests one after another, and does with each what the script says next."""

    def __init__(self, script: Sequence[Act]) -> None:
        self._script = list(script)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.requests: list[bytes] = []
        self.connections = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """Take no more."""
        # Wakes the thread that waits for a connection.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with connection:
                while self._script and self._serve(connection):
                    pass

    def _serve(self, connection: socket.socket) -> bool:
        """One request; whether the connection is still good."""
        try:
            request = _read_request(connection)
            if not request:
                return False
            self.requests.append(request)
            self._script.pop(0)(connection)
        except OSError:
            return False
        return connection.fileno() >= 0


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += (part := connection.recv(65536))
        if not part:
            return b""
    head, _, body = data.partition(b"\r\n\r\n")
    sizes = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while sizes and len(body) < sizes[0]:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    servers: list[Scripted] = []

    def start(*script: Act) -> Scripted:
        servers.append(Scripted(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def server(small_bundle: Path) -> Iterator[Running]:
    with serve_bundle(open_bundle(small_bundle), Options(front=Front(grpc=("127.0.0.1", 0)))) as running:
        yield running
