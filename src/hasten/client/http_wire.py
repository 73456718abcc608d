"""HTTP/1.1 for the blocking client: `http.client` of the standard library, with connections that are used again."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Mapping

from hasten.client.dialect import Message, Reply, unanswered
from hasten.errors import RequestError

__all__ = ["HttpWire", "connection_to", "exchange"]


def connection_to(host: str, timeout_s: float) -> http.client.HTTPConnection:
    """Return a connection, not yet opened; `host` is HOST:PORT and may begin with `https://`."""
    if host.startswith("https://"):
        return http.client.HTTPSConnection(host.removeprefix("https://"), timeout=timeout_s)
    return http.client.HTTPConnection(host, timeout=timeout_s)


def exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
) -> Reply:
    """One request and its answer; a connection that failed is made anew by the next request.

    Raises `RequestError`: `timeout` or `connection`.
    """
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        return Reply(
            status=response.status,
            headers={name.lower(): value for name, value in response.getheaders()},
            body=response.read(),
        )
    except TimeoutError as error:
        connection.close()
        words = f"The server did not answer within {connection.timeout:.3g} s."
        raise RequestError(words, code="timeout") from error
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise unanswered(error) from error


class HttpWire:
    """Keeps connections that rest for the next caller, of whichever thread. `headers` go with each request."""

    def __init__(self, host: str, headers: Mapping[str, str]) -> None:
        self._host = host
        self._headers = dict(headers)
        self._resting: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def exchange(self, message: Message, timeout_s: float) -> Reply:
        """Send a message and await the reply. Raises `RequestError`."""
        begin = time.monotonic()
        connection, used = self._connection()
        try:
            reply = self._try(connection, message, timeout_s)
        except RequestError as error:
            left_s = timeout_s - (time.monotonic() - begin)
            if error.code != "connection" or not used or left_s <= 0:
                raise
            # A server may close a connection that has rested for some seconds; that is no failure of this request.
            reply = self._try(connection, message, left_s)
        with self._lock:
            self._resting.append(connection)
        return reply

    def close(self) -> None:
        """Close the connections that rest."""
        with self._lock:
            resting, self._resting = self._resting, []
        for connection in resting:
            connection.close()

    def _try(self, connection: http.client.HTTPConnection, message: Message, timeout_s: float) -> Reply:
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        body = message.body if message.method == "POST" else None
        return exchange(connection, message.method, message.path, body, {**self._headers, **message.headers})

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            if self._resting:
                return self._resting.pop(), True
        return connection_to(self._host, 60.0), False
