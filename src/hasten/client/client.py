"""The clients, as users call them. Deadlines and tries are kept here; dialects know protocols, wires connections."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import numpy as np

from hasten.client.dialect import Dialect, GrpcDialect, HttpDialect, Message, Reply
from hasten.client.retry import Retry
from hasten.client.wire import AsyncWire, Wire
from hasten.errors import MissingError, RequestError, UsageError
from hasten.spec.signature import Signature
from hasten.wire.oip_client import Ask, Outputs

__all__ = ["AsyncClient", "Client", "connect", "connect_async"]

T = TypeVar("T")
_TIMEOUT_S = 60.0
_LANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PORTS = {"http": 80, "https": 443, "grpc": 8001, "grpcs": 443}


def connect(url: str, *, timeout_s: float = _TIMEOUT_S, retry: Retry | None = None, token: str | None = None) -> Client:
    """Return a client of the server at `url`: http://, https://, grpc:// or grpcs://HOST:PORT.

    `timeout_s` bounds each call with all its tries. Nothing is sent yet. Raises `UsageError` for another url,
    `MissingError` where the protocol's package is not installed.
    """
    scheme, address = _parts(url)
    if scheme.startswith("grpc"):
        wire: Wire = _grpc().GrpcWire(address, _headers(token), scheme == "grpcs")
        return Client(GrpcDialect(), wire, timeout_s, retry or Retry())
    from hasten.client.http_wire import HttpWire

    host = f"https://{address}" if scheme == "https" else address
    return Client(HttpDialect(), HttpWire(host, _headers(token)), timeout_s, retry or Retry())


def connect_async(
    url: str, *, timeout_s: float = _TIMEOUT_S, retry: Retry | None = None, token: str | None = None
) -> AsyncClient:
    """Return an asynchronous client; as `connect`. Call it on the event loop that will use it."""
    scheme, address = _parts(url)
    if scheme.startswith("grpc"):
        wire: AsyncWire = _grpc().AsyncGrpcWire(address, _headers(token), scheme == "grpcs")
        return AsyncClient(GrpcDialect(), wire, timeout_s, retry or Retry())
    try:
        from hasten.client.http_async import AsyncHttpWire
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return AsyncClient(
        HttpDialect(), AsyncHttpWire(f"{scheme}://{address}", _headers(token)), timeout_s, retry or Retry()
    )


class _Tries:
    """One call's deadline and its tries."""

    def __init__(self, timeout_s: float, retry: Retry) -> None:
        if not timeout_s > 0:
            raise UsageError(f"A timeout of {timeout_s} s leaves no time.", remedy="Give seconds above 0.")
        self._deadline = time.monotonic() + timeout_s
        self._retry = retry
        self._tried = 0

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, always above 0: what is sent too late times out at once."""
        return max(0.001, self._deadline - time.monotonic())

    def pause_s(self, error: RequestError) -> float:
        """The pause before the next try. Raises the error where there is none."""
        self._tried += 1
        pause = self._retry.pause_s(error, self._tried, self._deadline - time.monotonic(), random.random())
        if pause is None:
            raise error
        return pause


class Client:
    """A client that blocks. Threads may share it. Use it as `with connect(url) as client:`."""

    def __init__(self, dialect: Dialect, wire: Wire, timeout_s: float, retry: Retry) -> None:
        self._dialect = dialect
        self._wire = wire
        self._timeout_s = timeout_s
        self._retry = retry

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        version: str = "",
        outputs: Sequence[str] = (),
        id: str = "",
        priority: int = 0,
        lane: str = "",
        timeout_s: float | None = None,
    ) -> Outputs:
        """Return a model's outputs by name, all or those of `outputs`, as read-only arrays; they say which `variant` of
        the model gave them.

        `inputs` are arrays, or what numpy makes arrays of; strings and bytes travel as BYTES. `lane` is one of the
        server's by name, `priority` (1 is highest) by the protocol; the name goes first. Raises `RequestError` (its
        code is the server's, or `timeout` or `connection`), `DataError` for arrays that cannot be sent, `UsageError`
        for what no lane can be called.
        """
        ask = _ask(model, inputs, version, outputs, id, priority, lane)
        return self._call(lambda left_s: self._dialect.infer(_within(ask, left_s)), self._dialect.outputs, timeout_s)

    def signature(self, model: str, *, version: str = "", timeout_s: float | None = None) -> Signature:
        """Return what a model takes and gives. Raises `RequestError`."""
        return self._call(lambda _: self._dialect.metadata(model, version), self._dialect.signature, timeout_s)

    def ready(self, model: str = "", *, version: str = "", timeout_s: float | None = None) -> bool:
        """Return whether a model takes requests, or the whole server. Raises `RequestError` where nobody answers."""
        return self._call(
            lambda _: self._dialect.ready(model, version), lambda reply: self._dialect.is_ready(reply, model), timeout_s
        )

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _call(self, message: Callable[[float], Message], read: Callable[[Reply], T], timeout_s: float | None) -> T:
        tries = _Tries(self._timeout_s if timeout_s is None else timeout_s, self._retry)
        while True:
            try:
                left_s = tries.left_s
                return read(self._wire.exchange(message(left_s), left_s))
            except RequestError as error:
                time.sleep(tries.pause_s(error))


class AsyncClient:
    """A client for an event loop. Use it as `async with connect_async(url) as client:`."""

    def __init__(self, dialect: Dialect, wire: AsyncWire, timeout_s: float, retry: Retry) -> None:
        self._dialect = dialect
        self._wire = wire
        self._timeout_s = timeout_s
        self._retry = retry

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        version: str = "",
        outputs: Sequence[str] = (),
        id: str = "",
        priority: int = 0,
        lane: str = "",
        timeout_s: float | None = None,
    ) -> Outputs:
        """As `Client.infer`. A cancelled caller gives the request up, and its place in the server's queue."""
        ask = _ask(model, inputs, version, outputs, id, priority, lane)
        return await self._call(
            lambda left_s: self._dialect.infer(_within(ask, left_s)), self._dialect.outputs, timeout_s
        )

    async def signature(self, model: str, *, version: str = "", timeout_s: float | None = None) -> Signature:
        """As `Client.signature`."""
        return await self._call(lambda _: self._dialect.metadata(model, version), self._dialect.signature, timeout_s)

    async def ready(self, model: str = "", *, version: str = "", timeout_s: float | None = None) -> bool:
        """As `Client.ready`."""
        return await self._call(
            lambda _: self._dialect.ready(model, version), lambda reply: self._dialect.is_ready(reply, model), timeout_s
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._wire.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(
        self, message: Callable[[float], Message], read: Callable[[Reply], T], timeout_s: float | None
    ) -> T:
        tries = _Tries(self._timeout_s if timeout_s is None else timeout_s, self._retry)
        while True:
            try:
                left_s = tries.left_s
                return read(await self._wire.exchange(message(left_s), left_s))
            except RequestError as error:
                await asyncio.sleep(tries.pause_s(error))


def _ask(
    model: str,
    inputs: Mapping[str, Any],
    version: str,
    outputs: Sequence[str],
    id_: str,
    priority: int,
    lane: str,
) -> Ask:
    if lane and not _LANE.fullmatch(lane):
        # It goes into a header: nothing but a name may.
        raise UsageError(f"{lane!r} is no name of a lane.", remedy="Write it as in the server's serve.toml.")
    arrays = {name: np.asarray(value) for name, value in inputs.items()}
    return Ask(
        model=model, inputs=arrays, version=version, outputs=tuple(outputs), id=id_, priority=priority, lane=lane
    )


def _within(ask: Ask, left_s: float) -> Ask:
    """The server is told how long somebody will wait: what comes later is not worth computing."""
    return replace(ask, timeout_us=max(1, round(1e6 * left_s)))


def _parts(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    _, colon, port = parts.netloc.rpartition("]")[2].rpartition(":")
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or (colon and not port.isdigit()):
        raise UsageError(f"{url!r} is no server.", remedy="Write http://HOST:PORT or grpc://HOST:PORT, without a path.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts.scheme, f"{host}:{port if colon else _PORTS[parts.scheme]}"


def _headers(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


def _grpc() -> Any:
    try:
        from hasten.client import grpc_wire
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return grpc_wire


def _missing(error: ModuleNotFoundError) -> MissingError:
    return MissingError(
        f"This client needs the package {error.name!r}, which is not installed.",
        remedy="Install it with: pip install 'hasten[client]'",
    )
