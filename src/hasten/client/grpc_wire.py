"""gRPC for both clients: the reference library `grpcio`, with one connection, made anew when it breaks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio

from hasten.client.dialect import Message, Reply
from hasten.errors import RequestError
from hasten.wire.oip_grpc_client import grpc_failure

__all__ = ["AsyncGrpcWire", "GrpcWire"]

# Sizes are the server's to bound; retries are ours, so that they know the deadline and the protocol's words.
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    # Channels of one process do not share a connection, or closing one would not close it.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
]


class GrpcWire:
    """One channel. `address` is HOST:PORT; `headers` go with each call as metadata."""

    def __init__(self, address: str, headers: Mapping[str, str], tls: bool) -> None:
        self._metadata = tuple(headers.items())
        self._channel: Any = (
            grpc.secure_channel(address, grpc.ssl_channel_credentials(), _OPTIONS)
            if tls
            else grpc.insecure_channel(address, _OPTIONS)
        )

    def exchange(self, message: Message, timeout_s: float) -> Reply:
        """Call a method. Raises `RequestError`."""
        call = self._channel.unary_unary(message.path)
        try:
            return Reply(
                body=call(message.body, timeout=timeout_s, metadata=(*self._metadata, *message.headers.items()))
            )
        except grpc.RpcError as error:
            raise _failure(error, timeout_s) from error

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class AsyncGrpcWire:
    """The same on an event loop."""

    def __init__(self, address: str, headers: Mapping[str, str], tls: bool) -> None:
        self._metadata = tuple(headers.items())
        self._channel: Any = (
            grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(), _OPTIONS)
            if tls
            else grpc.aio.insecure_channel(address, _OPTIONS)
        )

    async def exchange(self, message: Message, timeout_s: float) -> Reply:
        """Call a method. Raises `RequestError`."""
        call = self._channel.unary_unary(message.path)
        try:
            return Reply(
                body=await call(message.body, timeout=timeout_s, metadata=(*self._metadata, *message.headers.items()))
            )
        except grpc.RpcError as error:
            raise _failure(error, timeout_s) from error

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


def _failure(error: Any, timeout_s: float) -> RequestError:
    trailers = {str(key): value for key, value in error.trailing_metadata() or ()}
    code, words = error.code(), error.details() or ""
    if "hasten-code" not in trailers:
        # The library speaks for the server too: these two statuses are mostly its own.
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return RequestError(f"The server did not answer within {timeout_s:.3g} s.", code="timeout")
        if code is grpc.StatusCode.UNAVAILABLE:
            return RequestError(f"The server does not answer: {words}.", code="connection")
    return grpc_failure(code.value[0], words, trailers)
