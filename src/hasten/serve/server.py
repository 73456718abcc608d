"""Start and stop a server: on the main thread for the command line, in the background for `bundle.serve()` and
tests.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from hasten.bundle.read import Bundle
from hasten.errors import MissingError, UsageError
from hasten.serve.driver import ModelService
from hasten.serve.frontend import Frontend
from hasten.spec.event import Served
from hasten.wire.base import Limits

__all__ = ["Running", "serve_bundle", "serve_forever"]

GRACE_S = 30


class Running:
    """A server in the background. `url` is where it listens; `services` by model name."""

    def __init__(self, url: str, services: dict[str, ModelService]) -> None:
        self.url = url
        self.services = services


def serve_forever(
    bundles: Sequence[Bundle],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    insecure: bool = False,
    queue_capacity: int = 256,
    sink: Callable[[Served], None] | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then answer what is under way and return.

    Raises `UsageError` for an address that needs `insecure`, a taken port or two bundles of one name,
    `MissingError` without the serve extra, `EngineError` where a bundle does not load here.
    """
    listener = _listen(host, port, insecure)
    try:
        _asyncio_run(
            _main(bundles, listener, queue_capacity, Limits(), sink, lambda r, _: on_ready and on_ready(r.url))
        )
    finally:
        listener.close()


@contextmanager
def serve_bundle(
    bundle: Bundle,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    queue_capacity: int = 256,
    limits: Limits | None = None,
    sink: Callable[[Served], None] | None = None,
) -> Generator[Running]:
    """Serve in the background while the block runs; port 0 takes a free one. Ready on entry, gone on exit."""
    listener = _listen(host, port, insecure=False)
    started, abandoned = threading.Event(), threading.Event()
    state: dict[str, Any] = {}

    def ready(running: Running, stop: Callable[[], object]) -> None:
        state.update(running=running, stop=stop)
        started.set()
        if abandoned.is_set():
            stop()

    def body() -> None:
        try:
            _asyncio_run(_main([bundle], listener, queue_capacity, limits or Limits(), sink, ready, signals=False))
        except BaseException as error:
            state["error"] = error
        finally:
            started.set()

    thread = threading.Thread(target=body, name="hasten-serve")
    thread.start()
    try:
        started.wait()
        if "error" in state:
            raise state["error"]
        yield state["running"]
    finally:
        # Ctrl-C may come while the bundle still loads: then `ready` stops what nobody waits for.
        abandoned.set()
        if "stop" in state:
            state["stop"]()
        thread.join()
        listener.close()


async def _main(
    bundles: Sequence[Bundle],
    listener: socket.socket,
    queue_capacity: int,
    limits: Limits,
    sink: Callable[[Served], None] | None,
    on_ready: Callable[[Running, Callable[[], object]], object],
    *,
    signals: bool = True,
) -> None:
    services = _services(bundles, queue_capacity, sink)
    frontend = Frontend(services, limits=limits)
    server = _uvicorn(frontend)
    loop = asyncio.get_running_loop()
    try:
        for service in services.values():
            await service.start()
        if signals:
            _on_signals(loop, frontend, server)
        host, port = listener.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.005)
        on_ready(Running(url, services), lambda: loop.call_soon_threadsafe(_stop, frontend, server))
        await serving
    finally:
        for service in services.values():
            await service.close()


def _services(
    bundles: Sequence[Bundle], queue_capacity: int, sink: Callable[[Served], None] | None
) -> dict[str, ModelService]:
    services: dict[str, ModelService] = {}
    for bundle in bundles:
        bundle.require_servable()
        name = bundle.manifest.name
        if name in services:
            raise UsageError(f"Two bundles are called {name!r}.", remedy="Serve one of them, or rebuild with --name.")
        services[name] = ModelService(bundle, queue_capacity=queue_capacity, sink=sink)
    return services


def _uvicorn(frontend: Frontend) -> Any:
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise MissingError(
            "Serving needs the package 'uvicorn', which is not installed.",
            remedy="Install it with: pip install 'hasten[serve]'",
        ) from error
    config = uvicorn.Config(
        frontend,  # pyright: ignore[reportArgumentType]
        log_config=None,
        # Tracebacks only: every stranger's malformed request would be a warning on standard error.
        log_level="error",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_S,
        h11_max_incomplete_event_size=32 * 1024,
    )
    server: Any = uvicorn.Server(config)
    # Signals are ours: becoming not ready comes before closing, and a background thread may not set any.
    server.capture_signals = _no_signals
    return server


@contextmanager
def _no_signals() -> Generator[None]:
    yield


def _on_signals(loop: asyncio.AbstractEventLoop, frontend: Frontend, server: Any) -> None:
    import signal

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stop, frontend, server)


def _stop(frontend: Frontend, server: Any) -> None:
    """Not ready at once, then no new connections, then finish; a second call does not wait."""
    server.force_exit = frontend.draining
    frontend.draining = True
    server.should_exit = True


def _asyncio_run(main: Any) -> None:
    """Run on uvloop where it is installed."""
    try:
        import uvloop
    except ModuleNotFoundError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _listen(host: str, port: int, insecure: bool) -> socket.socket:
    """Bind before anything is loaded, so that a taken port is known at once."""
    if not insecure and not _is_loopback(host):
        raise UsageError(
            f"{host} can be reached from other machines, and this server has no authentication yet.",
            remedy="Serve on 127.0.0.1 behind a proxy, or accept it with --insecure.",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"{host}:{port} cannot be used: {error.strerror}.",
            remedy="Choose another address with --http HOST:PORT.",
        ) from error
    return listener


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
