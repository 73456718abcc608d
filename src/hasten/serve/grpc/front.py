"""The gRPC front end as one part of a server: its hub, its methods, and how it begins and ends."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from hasten.serve.grpc.health import Health
from hasten.serve.grpc.hub import Hub
from hasten.serve.grpc.limits import GrpcLimits
from hasten.serve.grpc.methods import Methods
from hasten.serve.grpc.reflection import reflection_table
from hasten.serve.guard import Guard
from hasten.serve.repository import Repository
from hasten.serve.tls import HANDSHAKE_S
from hasten.serve.unread import Unread
from hasten.spec.event import Sink
from hasten.wire.base import Limits

__all__ = ["GrpcFront"]


class GrpcFront:
    """Serves on the running event loop, from `start` on; a `Finisher` for the server's lifecycle."""

    def __init__(
        self,
        repository: Repository,
        *,
        limits: Limits | None = None,
        front: GrpcLimits | None = None,
        guard: Guard | None = None,
        is_draining: Callable[[], bool] | None = None,
        sink: Sink | None = None,
        unread: Unread | None = None,
    ) -> None:
        limits = limits or Limits()
        self.draining = False
        guard = guard or Guard()
        unread = unread or Unread()
        methods = Methods(repository, limits, guard, sink, unread)
        methods.is_draining = is_draining or (lambda: self.draining)
        health = Health(methods)
        table = {**methods.table(), **health.table(), **reflection_table()}
        self.hub = Hub(table, limits.body, front, guard, health.look, methods.refused, unread)
        self._door: asyncio.Server | None = None

    async def start(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Take connections on a socket that listens; `tls` must offer the protocol h2."""
        self._door = await asyncio.get_running_loop().create_server(
            self.hub.connection, sock=listener, ssl=tls, ssl_handshake_timeout=None if tls is None else HANDSHAKE_S
        )
        self.hub.start()

    def close(self) -> None:
        """Take no more connections."""
        if self._door is not None:
            self._door.close()

    async def finish(self) -> None:
        """Take no more connections, let clients go, and return when every call is answered."""
        self.close()
        await self.hub.finish()

    def stop(self) -> None:
        """End at once what is left."""
        self.close()
        self.hub.stop()
