"""HTTP/1.1 for the asynchronous client: streams of asyncio, and llhttp (`httptools`) to read what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

import httptools

from hasten.client.dialect import Message, Reply, unanswered
from hasten.errors import RequestError

__all__ = ["AsyncHttpWire"]

_CHUNK = 2**18


class _Answer:
    """Takes what the parser finds."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.parts: list[bytes] = []
        self.complete = self.lasts = False
        self.parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        self.complete = self.parser.get_status_code() >= 200
        # Now or never: the parser forgets the header when it returns.
        self.lasts = self.parser.should_keep_alive()

    @property
    def reply(self) -> Reply:
        return Reply(status=self.parser.get_status_code(), headers=self.headers, body=b"".join(self.parts))


class _Line:
    """One open connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def exchange(self, data: bytes) -> tuple[Reply, bool]:
        """Send a request; return the reply, and whether the connection may be used again."""
        self._writer.write(data)
        await self._writer.drain()
        answer = _Answer()
        while not answer.complete:
            received = await self._reader.read(_CHUNK)
            if not received:
                raise ConnectionResetError("the connection was closed")
            answer.parser.feed_data(received)
        return answer.reply, answer.lasts

    def close(self) -> None:
        """Close without waiting."""
        self._writer.close()


class AsyncHttpWire:
    """Keeps connections that rest for the next caller. `url` is http:// or https://; `headers` go with each request."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        self._tls = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port or (443 if self._tls else 80)
        self._headers = {"host": parts.netloc, **headers}
        self._resting: list[_Line] = []

    async def exchange(self, message: Message, timeout_s: float) -> Reply:
        """Send a message and await the reply. Raises `RequestError`."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(self._bytes(message))
        except TimeoutError as error:
            words = f"The server did not answer within {timeout_s:.3g} s."
            raise RequestError(words, code="timeout") from error

    async def close(self) -> None:
        """Close the connections that rest."""
        while self._resting:
            self._resting.pop().close()

    async def _exchange(self, data: bytes) -> Reply:
        while self._resting:
            try:
                return await self._on(self._resting.pop(), data)
            except RequestError:
                # A server may close a connection that has rested for some seconds; that is no failure of this request.
                continue
        try:
            line = _Line(*await asyncio.open_connection(self._host, self._port, ssl=self._tls or None))
        except OSError as error:
            raise unanswered(error) from error
        return await self._on(line, data)

    async def _on(self, line: _Line, data: bytes) -> Reply:
        keep = False
        try:
            reply, keep = await line.exchange(data)
            return reply
        except (OSError, httptools.HttpParserError) as error:
            raise unanswered(error) from error
        finally:
            # Also where the caller was cancelled: the answer of one must not reach another.
            if keep:
                self._resting.append(line)
            else:
                line.close()

    def _bytes(self, message: Message) -> bytes:
        headers = {**self._headers, **message.headers, "content-length": str(len(message.body))}
        lines = [f"{message.method} {message.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + message.body
