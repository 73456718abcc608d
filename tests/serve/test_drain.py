"""The server as `hasten serve` starts it, and how it ends (R21)."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from hasten.bundle.read import Bundle

BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]})
INFER = "/v2/models/tiny/infer"


class Server:
    """A process, and the engine that is its child."""

    def __init__(self, process: subprocess.Popen[str], place: str) -> None:
        self.process = process
        self.place = place
        self.engine = next(
            child for child in psutil.Process(process.pid).children() if "worker" in str(child.cmdline())
        )

    def call(self, method: str = "POST", path: str = INFER) -> int:
        client = http.client.HTTPConnection(self.place, timeout=30)
        try:
            client.request(method, path, BODY if method == "POST" else None)
            answer = client.getresponse()
            answer.read()
            return answer.status
        finally:
            client.close()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def loading(bundle: Bundle, *options: str, python: tuple[str, ...] = ("-m", "hasten.cli")) -> Generator[Any]:
    """The process from its first moment on."""
    command = [sys.executable, *python, "serve", str(bundle.path), "--http", "127.0.0.1:0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def started(bundle: Bundle, *options: str, python: tuple[str, ...] = ("-m", "hasten.cli")) -> Generator[Server]:
    with loading(bundle, *options, python=python) as process:
        url = process.stderr.readline().split("ready: ")[1].strip()
        yield Server(process, urlsplit(url).netloc)


def wait_until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s"


def in_background(count: int, work: Callable[[], Any]) -> tuple[list[threading.Thread], list[Any]]:
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(work())) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, results


def test_r21_while_it_drains_the_server_is_not_ready_and_still_loses_nothing(bundle: Bundle) -> None:
    with started(bundle, "--drain-delay", "1.5") as server:
        idle = http.client.HTTPConnection(server.place, timeout=30)
        idle.request("GET", "/v2/health/ready")
        assert idle.getresponse().read() == b'{"ready":true}'
        server.engine.suspend()
        threads, in_flight = in_background(6, server.call)
        wait_until(lambda: len(psutil.Process(server.process.pid).net_connections("tcp")) >= 8)
        server.stop()
        wait_until(lambda: server.call("GET", "/v2/health/ready") == 503, within_s=1.0)
        server.engine.resume()
        until, answered = time.monotonic() + 0.8, []
        while time.monotonic() < until:
            answered.append(server.call())
        for thread in threads:
            thread.join()
        assert in_flight == [200] * 6
        assert answered and set(answered) == {200}
        assert server.process.wait(timeout=15) == 0
        idle.close()
        with pytest.raises(ConnectionRefusedError):
            server.call("GET", "/v2/health/live")


def test_what_is_under_way_when_the_door_closes_is_finished(bundle: Bundle) -> None:
    with started(bundle, "--drain-delay", "0") as server:
        server.engine.suspend()
        threads, results = in_background(1, server.call)
        wait_until(lambda: len(psutil.Process(server.process.pid).net_connections("tcp")) >= 2)
        server.stop()
        wait_until(lambda: _refused(server))
        server.engine.resume()
        threads[0].join()
        assert results == [200]
        assert server.process.wait(timeout=15) == 0


def test_a_second_signal_ends_the_server_at_once_even_where_the_engine_hangs(bundle: Bundle) -> None:
    with started(bundle, "--drain-delay", "60") as server:
        server.engine.suspend()
        threads, results = in_background(1, lambda: _outcome(server))
        wait_until(lambda: len(psutil.Process(server.process.pid).net_connections("tcp")) >= 2)
        server.stop()
        wait_until(lambda: server.call("GET", "/v2/health/ready") == 503)
        again = time.monotonic()
        server.stop()
        assert server.process.wait(timeout=15) == 0
        assert time.monotonic() - again < 3, "one second on a machine that has nothing else to do"
        threads[0].join()
        assert results == ["no answer"]
    wait_until(lambda: not server.engine.is_running() or server.engine.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_r21_a_signal_while_the_first_model_loads_ends_server_and_engine(
    bundle: Bundle, number: signal.Signals
) -> None:
    with loading(bundle) as process:
        wait_until(lambda: bool(_engines(process.pid)), within_s=60)
        engines = _engines(process.pid)
        engines[0].suspend()
        process.send_signal(number)
        assert process.wait(timeout=30) == 0
        assert "ready" not in process.stderr.read()
    wait_until(lambda: not engines[0].is_running() or engines[0].status() == psutil.STATUS_ZOMBIE)


# What a bundle that is being hashed, or native code, would do: a thread that nobody can end.
STUCK = """
import asyncio, time
from hasten.cli import main
from hasten.serve.repository import Repository
async def close(self): await asyncio.to_thread(time.sleep, 3600)
Repository.close = close
main()
"""


def test_r21_a_second_signal_waits_for_no_thread_either(bundle: Bundle) -> None:
    with started(bundle, "--drain-delay", "60", python=("-c", STUCK)) as server:
        server.stop()
        wait_until(lambda: server.call("GET", "/v2/health/ready") == 503)
        server.stop()
        assert server.process.wait(timeout=30) == 0
    wait_until(lambda: not server.engine.is_running() or server.engine.status() == psutil.STATUS_ZOMBIE)


def _engines(server: int) -> list[psutil.Process]:
    """Children that run a program of their own: one that is stopped between fork and exec stops its parent, too."""
    parent = psutil.Process(server)
    return [child for child in parent.children() if child.cmdline() not in ([], parent.cmdline())]


def _outcome(server: Server) -> int | str:
    try:
        return server.call()
    except (OSError, http.client.HTTPException):
        return "no answer"


def _refused(server: Server) -> bool:
    try:
        server.call("GET", "/v2/health/live")
    except ConnectionRefusedError:
        return True
    except (OSError, http.client.HTTPException):
        return False
    return False
