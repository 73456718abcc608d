"""The load of `make bench-overload`: an open loop in a process of its own, pinned to the core that no server has.

Requests are sent when they are due, whatever became of those before, over as many connections as that takes; refusals
come back faster than threads of Python could take them, so one thread polls all sockets, after each request that it
sends, too: in a burst an answer is not to wait for the requests behind it. It spins as long as little is under way, and
shortly before a request is due: to wake a core that sleeps takes time which is not the server's, and a poll may
oversleep by a millisecond. An answer counts from when its last byte was received, before it is read; latency counts
from when a request was due. With `callers` it is a closed loop instead, to find out what a server carries. `main` is
the process, `send` the other side.
"""

from __future__ import annotations

import gc
import json
import re
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httptools
import numpy as np

from hasten.engine.memory import keep_freed_memory

__all__ = ["CONNECTIONS", "KEPT", "PATIENCE_S", "Connection", "Log", "Message", "closed", "send"]

# Below what a server takes (1000), so that it is the queue that refuses and not the door of the house.
CONNECTIONS = 900
PATIENCE_S = 15.0
_SPIN_S, _LEAST_POLL_S = 0.002, 0.001
# With so few under way the core of the generator has nothing else to do.
_FEW = 2
_CHUNK = 2**18
KEPT = 2**26
_VARIANT = re.compile(rb'"variant":\s?"([^"]*)"')
_ERROR = re.compile(rb'"error":\s?"((?:[^"\\]|\\.)*)"')

Floats = np.ndarray[Any, np.dtype[np.float64]]
Numbers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Message:
    """A POST, ready to send but for its first line."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    def raw(self, port: int) -> bytes:
        """All bytes of it."""
        lines = [f"POST {self.path} HTTP/1.1", f"host: 127.0.0.1:{port}", f"content-length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True, slots=True)
class Log:
    """What became of each request, in seconds from time 0. `sent` and `done` are NaN where it was not sent, or not
    answered; `status` is 0 there. `word` is the variant of an answer or the text of an error, by number in `words`.
    """

    due: Floats
    sent: Floats
    done: Floats
    status: Numbers
    word: Numbers
    words: tuple[str, ...]


def send(port: int, messages: Sequence[Message], due: Floats, which: Numbers, core: int, work: Path) -> Log:
    """Send request i, `messages[which[i]]`, at `due[i]`; returns when all are answered or patience is over."""
    return _run({"port": port, "callers": 0, "seconds": 0.0}, messages, due, which, core, work)


def closed(port: int, message: Message, callers: int, seconds: float, core: int, work: Path) -> Log:
    """Let each of `callers` send its next request when the last was answered. A request is due when it is sent."""
    none = np.empty(0)
    return _run({"port": port, "callers": callers, "seconds": seconds}, [message], none, none.astype(int), core, work)


def _run(plan: dict[str, Any], messages: Sequence[Message], due: Floats, which: Numbers, core: int, work: Path) -> Log:
    folder = work / "sending"
    folder.mkdir(exist_ok=True)
    for number, message in enumerate(messages):
        (folder / f"message-{number}").write_bytes(message.raw(plan["port"]))
    np.savez(folder / "plan.npz", due=due, which=which)
    (folder / "plan.json").write_text(json.dumps({**plan, "messages": len(messages)}))
    subprocess.run(["taskset", "-c", str(core), sys.executable, str(Path(__file__).resolve()), str(folder)], check=True)
    found = np.load(folder / "log.npz")
    words = tuple(json.loads((folder / "words.json").read_text()))
    return Log(*(found[name] for name in ("due", "sent", "done", "status", "word")), words)


class Connection:
    """One socket, and the request that is under way on it. The parser calls the `on_` methods."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.unsent = memoryview(b"")
        self.request = -1
        self.complete = self.lasts = False
        self.text = b""
        self.parser = httptools.HttpResponseParser(self)

    def on_body(self, body: bytes) -> None:
        # The names and labels stand at the beginning; tensors behind them are not kept.
        if len(self.text) < 4096:
            self.text += body[:4096]

    def on_message_complete(self) -> None:
        self.complete = True
        # Now or never: the parser forgets the header when it returns.
        self.lasts = self.parser.should_keep_alive()

    def write(self) -> None:
        """Send as much as goes; `unsent` is what does not."""
        try:
            while self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            pass


class _Loop:
    """Everything that is under way. Lists grow by one entry a request."""

    def __init__(self, plan: Mapping[str, Any], messages: Sequence[bytes], due: Sequence[float], which: Sequence[int]):
        self._port, self._callers, self._seconds = plan["port"], plan["callers"], plan["seconds"]
        self._messages = messages
        self.due, self._which = list(due), list(which)
        count = len(self.due)
        self.sent, self.done = [float("nan")] * count, [float("nan")] * count
        self.status, self.word = [0] * count, [0] * count
        self.words: dict[bytes, int] = {b"": 0}
        self._poll = select.epoll()
        self._by_file: dict[int, Connection] = {}
        self._free: list[Connection] = []
        self._waiting: deque[int] = deque()
        self._open = 0
        self._next = 0
        # A lead-in is negative; the connections that a run begins with are made before its clock runs.
        self._origin = time.perf_counter() + 0.2 - min(self.due[0] if self.due else 0.0, 0.0)

    def run(self) -> None:
        """Send everything, and wait for the answers as long as patience lasts."""
        try:
            self._run()
        finally:
            self._poll.close()
            for connection in self._by_file.values():
                connection.socket.close()

    def _run(self) -> None:
        for _ in range(self._callers or 32):
            self._free.append(self._connect())
        for _ in range(self._callers):
            self._again()
        until = max(self.due, default=0.0) + PATIENCE_S if not self._callers else self._seconds + PATIENCE_S
        while (self._next < len(self.due) or self._waiting or self._open) and self._now() < until:
            self._send_due()
            self._take(self._rest())

    def _take(self, rest_s: float) -> None:
        """Read and write what can be."""
        for file, events in self._poll.poll(rest_s):
            connection = self._by_file[file]
            if events & select.EPOLLOUT:
                self._write(connection)
            if events & ~select.EPOLLOUT and file in self._by_file:
                self._read(connection)

    def _now(self) -> float:
        return time.perf_counter() - self._origin

    def _rest(self) -> float:
        """How long to poll: not at all shortly before a request is due."""
        if self._open and self._open <= _FEW and not self._callers:
            return 0.0
        if self._next >= len(self.due):
            return 0.05
        left = self.due[self._next] - self._now()
        return 0.0 if left < _SPIN_S else max(_LEAST_POLL_S, min(left - _SPIN_S, 0.05))

    def _send_due(self) -> None:
        if self._callers:
            return
        while self._next < len(self.due) and self.due[self._next] <= self._now():
            self._waiting.append(self._next)
            self._next += 1
        while self._waiting and (self._free or len(self._by_file) < CONNECTIONS):
            self._give(self._free.pop() if self._free else self._connect(), self._waiting.popleft())
            if self._open > 1:
                self._take(0.0)

    def _again(self) -> None:
        """A closed loop's caller sends its next request."""
        now = self._now()
        if now < self._seconds:
            self.due.append(now)
            for values, none in ((self.sent, now), (self.done, float("nan")), (self.status, 0), (self.word, 0)):
                values.append(none)
            self._which.append(0)
            self._next = len(self.due)
            self._give(self._free.pop() if self._free else self._connect(), len(self.due) - 1)

    def _connect(self) -> Connection:
        connection = Connection(self._port)
        self._by_file[connection.socket.fileno()] = connection
        self._poll.register(connection.socket, select.EPOLLIN)
        return connection

    def _give(self, connection: Connection, request: int) -> None:
        connection.request, connection.text, connection.complete = request, b"", False
        connection.unsent = memoryview(self._messages[self._which[request]])
        self.sent[request] = self._now()
        self._open += 1
        self._write(connection)

    def _write(self, connection: Connection) -> None:
        try:
            connection.write()
        except OSError:
            self._drop(connection)
            return
        self._poll.modify(connection.socket, select.EPOLLIN | (select.EPOLLOUT if connection.unsent else 0))
        if connection.request < 0 and not connection.unsent:
            # What was refused before it was sent is sent all the same, as most clients do.
            self._free.append(connection)

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        now = self._now()
        connection.parser.feed_data(data)
        if connection.complete and connection.request >= 0:
            self._finish(connection, now)

    def _finish(self, connection: Connection, now: float) -> None:
        request = connection.request
        self.done[request] = now
        self.status[request] = status = connection.parser.get_status_code()
        found = (_VARIANT if status == 200 else _ERROR).search(connection.text)
        self.word[request] = self.words.setdefault(found[1] if found else b"", len(self.words))
        self._end(connection, connection.lasts)

    def _drop(self, connection: Connection) -> None:
        self._end(connection, keeps=False)

    def _end(self, connection: Connection, keeps: bool) -> None:
        """The request is over, well or not; so is the connection where the server does not keep it."""
        if connection.request >= 0:
            self._open -= 1
            connection.request = -1
            again = bool(self._callers)
        else:
            again = False
        if keeps:
            if not connection.unsent:
                self._free.append(connection)
        else:
            self._poll.unregister(connection.socket)
            del self._by_file[connection.socket.fileno()]
            connection.socket.close()
            if connection in self._free:
                self._free.remove(connection)
        if again:
            self._again()


def main(folder: Path) -> None:
    plan, arrays = json.loads((folder / "plan.json").read_text()), np.load(folder / "plan.npz")
    messages = [(folder / f"message-{number}").read_bytes() for number in range(plan["messages"])]
    loop = _Loop(plan, messages, arrays["due"].tolist(), arrays["which"].tolist())
    # A pause of the collector would be taken for the server's; nothing here needs it. Nor should the kernel clear the
    # same pages for each piece of an answer.
    gc.disable()
    keep_freed_memory(KEPT)
    loop.run()
    words = [word.decode(errors="replace") for word in loop.words]
    (folder / "words.json").write_text(json.dumps(words))
    columns = {name: np.array(getattr(loop, name)) for name in ("due", "sent", "done", "status", "word")}
    np.savez(folder / "log.npz", **columns)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
