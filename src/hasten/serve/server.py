"""Start and stop a server: on the main thread for the command line, in the background for `bundle.serve()` and
tests.
"""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hasten.bundle.read import Bundle
from hasten.errors import MissingError, UsageError
from hasten.serve.access import Access
from hasten.serve.driver import ModelService
from hasten.serve.http.limits import HttpLimits
from hasten.serve.lifecycle import Lifecycle
from hasten.spec.event import Served
from hasten.wire.base import Limits

if TYPE_CHECKING:
    from hasten.serve.grpc.front import GrpcFront
    from hasten.serve.http.frontend import Frontend
    from hasten.serve.http.hub import Hub

__all__ = ["Front", "Running", "serve_bundle", "serve_forever"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Front:
    """How the server meets its clients. After the request to stop it goes on serving for `drain_delay_s` while it says
    that it is not ready; what is under way then has `grace_s` to end. `grpc` is the host and port where it speaks gRPC
    too, if it does.
    """

    limits: HttpLimits = field(default_factory=HttpLimits)
    access: Access = field(default_factory=Access)
    drain_delay_s: float = 0.0
    grace_s: float = 30.0
    grpc: tuple[str, int] | None = None


class Running:
    """A server in the background. `url` is where it listens, `grpc` its HOST:PORT for gRPC if it has one; `services` by
    model name.
    """

    def __init__(self, url: str, services: dict[str, ModelService], grpc: str = "") -> None:
        self.url = url
        self.services = services
        self.grpc = grpc


def serve_forever(
    bundles: Sequence[Bundle],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    insecure: bool = False,
    queue_capacity: int = 256,
    sink: Callable[[Served], None] | None = None,
    front: Front | None = None,
    on_ready: Callable[[Running], None] | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then answer what is under way and return.

    Raises `UsageError` for an address that needs `insecure`, a taken port or two bundles of one name,
    `MissingError` without the serve extra, `EngineError` where a bundle does not load here.
    """
    front = front or Front()
    listener, grpc = _listeners(host, port, front, insecure)
    try:
        _asyncio_run(
            _main(
                bundles,
                listener,
                grpc,
                queue_capacity,
                Limits(),
                sink,
                front,
                lambda running, _: on_ready and on_ready(running),
            )
        )
    finally:
        _close(listener, grpc)


@contextmanager
def serve_bundle(
    bundle: Bundle,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    queue_capacity: int = 256,
    limits: Limits | None = None,
    sink: Callable[[Served], None] | None = None,
    front: Front | None = None,
) -> Generator[Running]:
    """Serve in the background while the block runs; port 0 takes a free one. Ready on entry, gone on exit."""
    front = front or Front()
    listener, grpc = _listeners(host, port, front, insecure=False)
    started, abandoned = threading.Event(), threading.Event()
    state: dict[str, Any] = {}

    def ready(running: Running, stop: Callable[[], object]) -> None:
        state.update(running=running, stop=stop)
        started.set()
        if abandoned.is_set():
            stop()

    def body() -> None:
        try:
            _asyncio_run(
                _main(
                    [bundle],
                    listener,
                    grpc,
                    queue_capacity,
                    limits or Limits(),
                    sink,
                    front,
                    ready,
                    signals=False,
                )
            )
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
        _close(listener, grpc)


async def _main(
    bundles: Sequence[Bundle],
    listener: socket.socket,
    grpc_listener: socket.socket | None,
    queue_capacity: int,
    limits: Limits,
    sink: Callable[[Served], None] | None,
    front: Front,
    on_ready: Callable[[Running, Callable[[], object]], object],
    *,
    signals: bool = True,
) -> None:
    services = _services(bundles, queue_capacity, sink)
    frontend, hub = _http(services, limits, front)
    grpc = _grpc(services, limits, front) if grpc_listener is not None else None
    life = Lifecycle([hub] if grpc is None else [hub, grpc], delay_s=front.drain_delay_s, grace_s=front.grace_s)
    frontend.is_draining = lambda: life.draining
    loop = asyncio.get_running_loop()
    try:
        for service in services.values():
            await service.start()
        if signals:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, life.stop)
        hub.start()
        door = await loop.create_server(hub.connection, sock=listener)
        address = ""
        if grpc is not None and grpc_listener is not None:
            await grpc.start(grpc_listener)
            address = _url(grpc_listener).removeprefix("http://")
        on_ready(Running(_url(listener), services, address), lambda: loop.call_soon_threadsafe(life.stop))
        await life.run(door)
    finally:
        hub.stop()
        if grpc is not None:
            grpc.stop()
        for service in services.values():
            await service.close()


def _http(services: Mapping[str, ModelService], limits: Limits, front: Front) -> tuple[Frontend, Hub]:
    try:
        from hasten.serve.http.frontend import Frontend
        from hasten.serve.http.hub import Hub
    except ModuleNotFoundError as error:
        raise MissingError(
            f"Serving needs the package {error.name!r}, which is not installed.",
            remedy="Install it with: pip install 'hasten[serve]'",
        ) from error
    frontend = Frontend(services, limits=limits, access=front.access)
    return frontend, Hub(frontend, limits.body, front.limits)


def _grpc(services: Mapping[str, ModelService], limits: Limits, front: Front) -> GrpcFront:
    try:
        from hasten.serve.grpc.front import GrpcFront
    except ModuleNotFoundError as error:
        raise MissingError(
            f"Serving gRPC needs the package {error.name!r}, which is not installed.",
            remedy="Install it with: pip install 'hasten[grpc]'",
        ) from error
    return GrpcFront(services, limits=limits, access=front.access)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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


def _asyncio_run(main: Any) -> None:
    """Run on uvloop where it is installed."""
    try:
        import uvloop
    except ModuleNotFoundError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _listeners(host: str, port: int, front: Front, insecure: bool) -> tuple[socket.socket, socket.socket | None]:
    listener = _listen(host, port, insecure)
    try:
        return listener, None if front.grpc is None else _listen(*front.grpc, insecure, "--grpc")
    except UsageError:
        listener.close()
        raise


def _close(*listeners: socket.socket | None) -> None:
    for listener in listeners:
        if listener is not None:
            listener.close()


def _listen(host: str, port: int, insecure: bool, option: str = "--http") -> socket.socket:
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
            remedy=f"Choose another address with {option} HOST:PORT.",
        ) from error
    return listener


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
