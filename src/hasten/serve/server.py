"""Start and stop a server: on the main thread for the command line, in the background for `bundle.serve()` and
tests.
"""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import logging
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hasten import heap
from hasten.bundle.read import Bundle
from hasten.engine.confine import WorkerLimits
from hasten.engine.memory import keep_freed_memory
from hasten.errors import MissingError, UsageError
from hasten.serve.access import Access
from hasten.serve.grpc.limits import GrpcLimits
from hasten.serve.guard import Guard
from hasten.serve.http.limits import HttpLimits
from hasten.serve.lifecycle import Lifecycle
from hasten.serve.plan import Rules, check_models, warnings_of
from hasten.serve.pool import Isolation
from hasten.serve.rate import Rate
from hasten.serve.repository import Repository
from hasten.serve.service import ModelService
from hasten.serve.telemetry import Telemetry
from hasten.serve.tls import HANDSHAKE_S
from hasten.serve.unread import MOST_UNREAD, Unread
from hasten.wire.base import Limits

if TYPE_CHECKING:
    from hasten.serve.grpc.front import GrpcFront
    from hasten.serve.http.frontend import Frontend
    from hasten.serve.http.hub import Hub

__all__ = ["Front", "Options", "Running", "allow_files", "require_guard", "serve_bundle", "serve_forever"]

_log = logging.getLogger("hasten.serve")
# Engines, libraries, logs.
_OWN_FILES = 512
# Free memory that the server's process keeps for the next large tensors.
_KEPT_BYTES = 128 * 2**20
# How long what is left may take to end after the second signal; a thread in native code could take for ever.
_AT_ONCE_S = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Front:
    """How the server meets its clients. After the request to stop it goes on serving for `drain_delay_s` while it says
    that it is not ready; what is under way then has `grace_s` to end. While all clients together leave more than
    `unread` bytes of answers unread, inference is refused. `grpc` is the host and port where it speaks gRPC too, if it
    does; `grpc_tls` must be given there where `tls` is. `rate` bounds the requests of each token or
    certificate, `tenant_rates` those of whoever is to have a rate of its own.
    """

    limits: HttpLimits = field(default_factory=HttpLimits)
    access: Access = field(default_factory=Access)
    rate: Rate | None = None
    tenant_rates: Mapping[str, Rate | None] = field(default_factory=dict[str, "Rate | None"])
    tls: ssl.SSLContext | None = None
    grpc: tuple[str, int] | None = None
    grpc_tls: ssl.SSLContext | None = None
    grpc_limits: GrpcLimits = field(default_factory=GrpcLimits)
    unread: int = MOST_UNREAD
    drain_delay_s: float = 0.0
    grace_s: float = 30.0

    @property
    def keeps_strangers_out(self) -> bool:
        """Whether clients must show a token or a certificate."""
        return self.access.has_tokens or (self.tls is not None and self.tls.verify_mode == ssl.CERT_REQUIRED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """All that a server can be told, but where it listens: `rules` of scheduling; `isolation` and the bounds of
    `workers`, as of `ModelService`; the codecs' `limits`; who observes; and how it meets its clients.
    """

    rules: Rules = field(default_factory=Rules)
    isolation: Isolation = "process"
    workers: WorkerLimits = field(default_factory=WorkerLimits)
    limits: Limits = field(default_factory=Limits)
    telemetry: Telemetry = field(default_factory=Telemetry)
    front: Front = field(default_factory=Front)

    def service(self, bundle: Bundle) -> ModelService:
        """Return a service of the bundle, not yet started."""
        return ModelService(
            bundle, rules=self.rules, sink=self.telemetry.sink, isolation=self.isolation, limits=self.workers
        )


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
    options: Options | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    insecure: bool = False,
    on_ready: Callable[[Running], None] | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then answer what is under way and return. The second of them ends the process at
    once.

    Raises `UsageError` for an address that needs `insecure`, a taken port, two bundles of one name or rules that fit
    none, `MissingError` without the serve extra, `EngineError` where a bundle does not load here.
    """
    options = options or Options()
    front = options.front
    allow_files(front.limits.connections + (front.grpc_limits.connections if front.grpc else 0))
    keep_freed_memory(_KEPT_BYTES)
    listener, grpc = _listeners(host, port, front, insecure or front.keeps_strangers_out)
    try:
        _asyncio_run(_main(bundles, options, listener, grpc, lambda running, _: on_ready and on_ready(running)))
    finally:
        _close(listener, grpc)


@contextmanager
def serve_bundle(
    bundle: Bundle, options: Options | None = None, *, host: str = "127.0.0.1", port: int = 0
) -> Generator[Running]:
    """Serve in the background while the block runs; port 0 takes a free one. Ready on entry, gone on exit."""
    options = options or Options()
    listener, grpc = _listeners(host, port, options.front, options.front.keeps_strangers_out)
    started, abandoned = threading.Event(), threading.Event()
    state: dict[str, Any] = {}

    def ready(running: Running, stop: Callable[[], object]) -> None:
        state.update(running=running, stop=stop)
        started.set()
        if abandoned.is_set():
            stop()

    def body() -> None:
        try:
            _asyncio_run(_main([bundle], options, listener, grpc, ready, signals=False))
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
    options: Options,
    listener: socket.socket,
    grpc_listener: socket.socket | None,
    on_ready: Callable[[Running, Callable[[], object]], object],
    *,
    signals: bool = True,
) -> None:
    front = options.front
    check_models(options.rules, [bundle.manifest.name for bundle in bundles])
    # Where its signals are the server's own, so is the process.
    repository = Repository(bundles, options.service, heap.settle if signals else None)
    for words in warnings_of(service.plan for service in repository.services.values()):
        _log.warning("%s", words)
    guard = Guard(front.access, front.rate, tenants=front.tenant_rates)
    unread = Unread(front.unread)
    frontend, hub = _http(repository, options, guard, unread)
    grpc = None if grpc_listener is None else _grpc(repository, options, guard, unread)
    life = Lifecycle([hub] if grpc is None else [hub, grpc], delay_s=front.drain_delay_s, grace_s=front.grace_s)
    frontend.is_draining = lambda: life.draining
    loop = asyncio.get_running_loop()
    try:
        if signals:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, _stop, loop, life)
        if not await life.begin(repository.start()):
            return
        hub.start()
        handshake_s = None if front.tls is None else HANDSHAKE_S
        door = await loop.create_server(hub.connection, sock=listener, ssl=front.tls, ssl_handshake_timeout=handshake_s)
        running = Running(_url(listener, front), repository.services)
        if grpc is not None and grpc_listener is not None:
            await grpc.start(grpc_listener, front.grpc_tls)
            running.grpc = _address(grpc_listener)
        on_ready(running, lambda: loop.call_soon_threadsafe(life.stop))
        await life.run(door)
    finally:
        hub.stop()
        if grpc is not None:
            grpc.stop()
        await repository.close()


def _stop(loop: asyncio.AbstractEventLoop, life: Lifecycle) -> None:
    """What a signal does. Engine processes follow this one, however it ends."""
    if life.draining:
        loop.call_later(_AT_ONCE_S, os._exit, 0)
    life.stop()


def _http(repository: Repository, options: Options, guard: Guard, unread: Unread) -> tuple[Frontend, Hub]:
    try:
        from hasten.serve.http.frontend import Frontend
        from hasten.serve.http.hub import Hub
    except ModuleNotFoundError as error:
        raise MissingError(
            f"Serving needs the package {error.name!r}, which is not installed.",
            remedy="Install it with: pip install 'hasten[serve]'",
        ) from error
    frontend = Frontend(repository, limits=options.limits, guard=guard, telemetry=options.telemetry, unread=unread)
    return frontend, Hub(frontend, options.limits.body, options.front.limits, refused=frontend.refused, unread=unread)


def _grpc(repository: Repository, options: Options, guard: Guard, unread: Unread) -> GrpcFront:
    try:
        from hasten.serve.grpc.front import GrpcFront
    except ModuleNotFoundError as error:
        raise MissingError(
            f"Serving gRPC needs the package {error.name!r}, which is not installed.",
            remedy="Install it with: pip install 'hasten[grpc]'",
        ) from error
    return GrpcFront(
        repository,
        limits=options.limits,
        front=options.front.grpc_limits,
        guard=guard,
        sink=options.telemetry.sink,
        unread=unread,
    )


def _url(listener: socket.socket, front: Front) -> str:
    return f"{'http' if front.tls is None else 'https'}://{_address(listener)}"


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _asyncio_run(main: Any) -> None:
    """Run on uvloop where it is installed."""
    if importlib.util.find_spec("uvloop") is None:
        asyncio.run(main)
    else:
        import uvloop

        uvloop.run(main)


def _listeners(host: str, port: int, front: Front, guarded: bool) -> tuple[socket.socket, socket.socket | None]:
    if front.grpc is not None and (front.tls is None) != (front.grpc_tls is None):
        raise UsageError(
            "One of HTTP and gRPC would speak TLS and the other not.",
            remedy="Give both tls and grpc_tls: hasten.serve.tls.server_context makes them.",
        )
    listener = _listen(host, port, guarded)
    try:
        return listener, None if front.grpc is None else _listen(*front.grpc, guarded, "--grpc")
    except UsageError:
        listener.close()
        raise


def _close(*listeners: socket.socket | None) -> None:
    for listener in listeners:
        if listener is not None:
            listener.close()


def _listen(host: str, port: int, guarded: bool, option: str = "--http") -> socket.socket:
    """Bind before anything is loaded, so that a taken port is known at once."""
    require_guard(host, guarded)
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


def allow_files(connections: int) -> None:
    """Let this process open a file for each connection, and for those that are turned away, as far as it may."""
    try:
        import resource
    except ModuleNotFoundError:
        # Windows has no such limit.
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + _OWN_FILES
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def require_guard(host: str, guarded: bool) -> None:
    """Raise `UsageError` where strangers can reach `host` and nothing keeps them out."""
    if not guarded and not _is_loopback(host):
        raise UsageError(
            f"{host} can be reached from other machines, and nothing would keep strangers out.",
            remedy="Give tokens with --infer-tokens FILE or clients' certificates with --client-ca FILE, serve on "
            "127.0.0.1 behind a proxy, or accept it with --insecure.",
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
