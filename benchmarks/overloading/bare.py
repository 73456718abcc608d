"""The engine behind a bare socket: what moving a request and its answer takes where nobody decides, checks or isolates
anything. What a lone request of a server takes beyond it is the server's doing.

One thread waits for a connection that has something to say, receives all of it, runs the engine and sends what it gave.
The processor rests between two requests as a server's does. `main` is the process.
"""

from __future__ import annotations

import select
import socket
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from servers.bundle import MODEL, target
from servers.process import Server, free_ports, launched

__all__ = ["bare"]

# For the longest request.
_ROOM = 2**23


@contextmanager
def bare(bundle: Path, core: int, work: Path) -> Generator[Server]:
    """Load the bundle's reference as the server does, pinned to a core. It takes what a POST ends with for inputs of
    the shapes of the golden sample, and answers with the bytes of all outputs.
    """
    [port] = free_ports(1)
    here = Path(__file__).parents[1]
    command = [sys.executable, "-m", "overloading.bare", str(bundle), str(port)]
    variables = {"PYTHONPATH": f"{here}:{here.parent / 'src'}"}
    with launched("a bare socket", command, http=port, core=core, environment=variables, log=work / "bare.log") as up:
        yield up


def main(bundle: Path, port: int) -> None:
    from hasten.engine.base import engines

    golden = np.load(bundle / "golden/inputs.npz")
    samples = {key.partition("/")[2]: golden[key] for key in golden.files if key.startswith("0/")}
    with closing(engines.get("onnxruntime").load(bundle / MODEL, target())) as session:
        session.run(samples)
        listener = socket.create_server(("127.0.0.1", port), backlog=256)
        waiting, connections = select.epoll(), {listener.fileno(): listener}
        waiting.register(listener, select.EPOLLIN)
        room = bytearray(_ROOM)
        while True:
            for file, _ in waiting.poll():
                connection = connections[file]
                if connection is listener:
                    made, _ = listener.accept()
                    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connections[made.fileno()] = made
                    waiting.register(made, select.EPOLLIN)
                elif (size := received(connection, room)) == 0:
                    waiting.unregister(connection)
                    connections.pop(file).close()
                elif room.startswith(b"GET"):
                    answer(connection, [])
                else:
                    outputs = session.run(inputs_in(memoryview(room)[:size], samples))
                    answer(connection, [np.ascontiguousarray(array) for array in outputs.values()])


def received(connection: socket.socket, room: bytearray) -> int:
    """Receive one request; its size, 0 where the client has left."""
    size, whole, view = 0, 1, memoryview(room)
    while size < whole:
        got = connection.recv_into(view[size:])
        if not got:
            return 0
        size += got
        head, mark, _ = bytes(view[: min(size, 4096)]).lower().partition(b"\r\n\r\n")
        length = head.partition(b"content-length:")[2].partition(b"\r")[0] or b"0"
        whole = len(head) + len(mark) + int(length) if mark else size + 1
    return size


def inputs_in(request: memoryview, samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inputs that a request ends with, one after another."""
    inputs: dict[str, np.ndarray] = {}
    start = len(request) - sum(array.nbytes for array in samples.values())
    for name, array in samples.items():
        inputs[name] = np.ndarray(array.shape, array.dtype, request, start)
        start += array.nbytes
    return inputs


def answer(connection: socket.socket, arrays: list[np.ndarray]) -> None:
    """Send arrays, one after another."""
    blobs = [memoryview(array).cast("B") for array in arrays]
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % sum(map(len, blobs))
    parts = [memoryview(head), *blobs]
    sent = connection.sendmsg(parts)
    for part in parts:
        connection.sendall(part[min(sent, len(part)) :])
        sent = max(0, sent - len(part))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
