"""A server in a process of its own: on free ports of loopback, on the cores it is given, gone when the block ends."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Server", "free_ports", "launched", "stopped"]

READY_WITHIN_S = 90.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: HTTP and gRPC on these ports of 127.0.0.1; `grpc` is None where it speaks none."""

    name: str
    process: psutil.Process
    http: int
    grpc: int | None = None
    log: Path | None = None

    def last_words(self) -> str:
        """How it is, and the end of what it said."""
        state = self.process.status() if self.process.is_running() else "gone"
        said = self.log.read_text(errors="replace")[-2000:] if self.log else ""
        return f"{self.name} is {state}; its last words:\n{said}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    def cpu_s(self) -> float:
        """Processor time of the server and its children so far."""
        times = [one.cpu_times() for one in self.processes()]
        return sum(time.user + time.system for time in times)

    def processes(self) -> list[psutil.Process]:
        """The server and what it has started, and so on."""
        return [self.process, *self.process.children(recursive=True)]


@contextmanager
def stopped(servers: Iterable[Server]) -> Generator[None]:
    """Servers stand still meanwhile, with all their processes."""
    processes = [one for server in servers for one in server.processes()]
    try:
        for one in processes:
            with suppress(psutil.NoSuchProcess):
                one.suspend()
        yield
    finally:
        for one in processes:
            with suppress(psutil.NoSuchProcess):
                one.resume()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody uses now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def launched(
    name: str,
    command: Sequence[str],
    *,
    http: int,
    grpc: int | None = None,
    ready: str = "/v2/health/ready",
    core: int | None = None,
    environment: Mapping[str, str] | None = None,
    log: Path,
) -> Generator[Server]:
    """Start a server, wait until `ready` answers 200, and end it with all its children. What it says goes to `log`."""
    pinned = [] if core is None else [_taskset(), "-c", str(core)]
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*pinned, *command], stdout=said, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
        server = Server(name, psutil.Process(process.pid), http, grpc, log)
        try:
            _wait(server, ready, process)
            yield server
        finally:
            _end(process, server.process)


def _taskset() -> str:
    return shutil.which("taskset") or sys.exit("taskset is missing: install it with apt-get install util-linux")


def _wait(server: Server, path: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(server.url + path, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
    sys.exit(f"{server.name} did not start: {server.last_words()}")


def _end(process: subprocess.Popen[bytes], seen: psutil.Process) -> None:
    """Ask it to stop, so that it can clean up after itself, and insist."""
    children = seen.children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in children:
        if child.is_running():
            child.kill()
