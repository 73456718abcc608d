"""A hub and a bare HTTP/2 client on one loop: scenes play between them, with methods that echo, hold and talk."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import ngh2

from hasten.serve.access import Operation
from hasten.serve.grpc.call import Call, Method
from hasten.serve.grpc.hub import Hub
from hasten.serve.grpc.limits import GrpcLimits
from hasten.serve.guard import Guard
from hasten.serve.unread import MOST_UNREAD, Unread

ECHO, STREAM, HOLD, BUG = b"/test/Echo", b"/test/Stream", b"/test/Hold", b"/test/Bug"
ECHOES, TALK = b"/test/Echoes", b"/test/Talk"
MESSAGE_LIMIT = 4 * 2**20
TOKEN = "a-token-that-is-long-enough"
PATIENCE_S = 15.0


class Backend:
    """Methods that tell what became of their calls."""

    def __init__(self) -> None:
        self.held: list[Call] = []
        self.cancelled = 0
        self.echoed = 0

    def table(self) -> dict[bytes, Method]:
        return {
            ECHO: Method(operation=Operation.INFER, take=lambda call, message: call.reply([message])),
            STREAM: Method(operation=Operation.INFER, take=self._hold, end=lambda call: None, streaming=True),
            HOLD: Method(operation=Operation.INFER, take=self._hold),
            ECHOES: Method(operation=Operation.INFER, take=self._echo, end=Call.finish, streaming=True),
            TALK: Method(operation=Operation.INFER, take=_talk, streaming=True),
            BUG: Method(operation=Operation.INFER, take=_fail),
        }

    def _hold(self, call: Call, message: bytes) -> None:
        self.held.append(call)
        call.ahead += 1
        call.cancel = self._cancel

    def _echo(self, call: Call, message: bytes) -> None:
        self.echoed += 1
        call.send([message])

    def _cancel(self) -> None:
        self.cancelled += 1


def _talk(call: Call, message: bytes) -> None:
    for _ in range(100):
        call.send([message])


def _fail(call: Call, message: bytes) -> None:
    raise ZeroDivisionError


@dataclass
class Reply:
    """What a client got for one call."""

    headers: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    body: bytes = b""
    reset: int | None = None
    closed: bool = False

    @property
    def status(self) -> int:
        return int(self.headers[b"grpc-status"])

    @property
    def message(self) -> bytes:
        compressed, size = struct.unpack_from(">BI", self.body)
        assert (compressed, size) == (0, len(self.body) - 5)
        return self.body[5:]


class Client:
    """A bare HTTP/2 client: it sends what it is told, right or wrong. With a `window` it takes so many bytes of a
    stream, and more when they are acknowledged.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, window: int | None = None) -> None:
        self._reader, self.writer = reader, writer
        self.http = ngh2.Connection(ngh2.Role.CLIENT, ngh2.Configuration(auto_window_update=window is None))
        self.http.initiate_connection({ngh2.Setting.INITIAL_WINDOW_SIZE: window or 2**24})
        self.http.set_local_window_size(2**24)
        self.replies: dict[int, Reply] = {}
        self.goaway: int | None = None
        self.eof = False

    def begin(self, path: bytes = ECHO, *, end_stream: bool = False, **fields: bytes) -> int:
        head = {b":method": b"POST", b":scheme": b"http", b":path": path, b":authority": b"x"}
        head |= {b"content-type": b"application/grpc", b"te": b"trailers"}
        extra = {(":" if name == "method" else "") + name.replace("_", "-"): value for name, value in fields.items()}
        head |= {name.encode(): value for name, value in extra.items()}
        stream = self.http.send_request(list(head.items()), end_stream=end_stream)
        self.replies[stream] = Reply()
        return stream

    def call(self, body: bytes = b"\0\0\0\0\0", path: bytes = ECHO, **fields: bytes) -> int:
        stream = self.begin(path, **fields)
        self.http.send_data(stream, body, end_stream=True)
        return stream

    async def until(self, condition: Callable[[], bool]) -> None:
        """Send and receive until something is so."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.flush()
                data = await self._reader.read(2**20)
                self.eof = self.eof or not data
                if data:
                    self.http.receive_data(data)
                    for event in self.http.events():
                        self._on(event)
                else:
                    assert condition(), "the server closed the connection"

    def flush(self) -> None:
        self.writer.write(self.http.data_to_send())

    async def reply(self, stream: int) -> Reply:
        await self.until(lambda: self.replies[stream].closed)
        return self.replies[stream]

    async def read(self, stream: int) -> Reply:
        """Take all of an answer, where a window bounds what comes unasked."""
        reply, acknowledged = self.replies[stream], 0
        while not reply.closed:
            self.http.acknowledge_received_data(len(reply.body) - acknowledged, stream)
            acknowledged = len(reply.body)
            await self.until(lambda had=acknowledged: reply.closed or len(reply.body) > had)
        return reply

    async def ask(self, body: bytes, path: bytes = ECHO, **fields: bytes) -> Reply:
        return await self.reply(self.call(body, path, **fields))

    async def until_held(self, backend: Backend, count: int = 1) -> None:
        """Until the method holds so many messages: the loop is the server's too."""
        self.flush()
        async with asyncio.timeout(PATIENCE_S):
            while len(backend.held) < count:
                await asyncio.sleep(0)

    def _on(self, event: Any) -> None:
        match event:
            case ngh2.ResponseReceived() | ngh2.TrailersReceived():
                self.replies[event.stream_id].headers |= dict(event.headers)
            case ngh2.DataReceived():
                self.replies[event.stream_id].body += event.data
            case ngh2.StreamReset():
                self.replies[event.stream_id].reset = event.error_code
            case ngh2.StreamClosed():
                self.replies[event.stream_id].closed = True
            case ngh2.GoAwayReceived():
                self.goaway = event.error_code
            case _:
                pass


def framed(message: bytes, size: int | None = None, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, len(message) if size is None else size) + message


async def ended(reader: asyncio.StreamReader) -> bool:
    """Read until the server hangs up, in whichever way."""
    try:
        while await reader.read(2**16):
            pass
    except ConnectionError:
        pass
    return True


Scene = Callable[[Client, Backend, Hub], Awaitable[None]]


def play(
    scene: Scene,
    *,
    limits: GrpcLimits | None = None,
    guard: Guard | None = None,
    greet: bool = True,
    window: int | None = None,
    most_unread: int = MOST_UNREAD,
) -> None:
    """Run a scene between a client and a hub on one loop."""

    async def main() -> None:
        backend = Backend()
        hub = Hub(backend.table(), MESSAGE_LIMIT, limits, guard, unread=Unread(most_unread))
        door = await asyncio.get_running_loop().create_server(hub.connection, "127.0.0.1", 0)
        host, port = door.sockets[0].getsockname()[:2]
        reader, writer = await asyncio.open_connection(host, port)
        try:
            client = Client(reader, writer, window)
            if greet:
                client.flush()
            await scene(client, backend, hub)
        finally:
            writer.close()
            hub.stop()
            door.close()

    asyncio.run(main())
