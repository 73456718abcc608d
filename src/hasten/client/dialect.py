"""What is asked and answered in each protocol, as plain values; how it gets there is the wire's business.

`Message` is what a wire carries, `Reply` what it brings back. A dialect makes the one and reads the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from hasten.errors import RequestError
from hasten.spec.signature import Signature
from hasten.wire import oip_client
from hasten.wire.base import LANE_HEADER
from hasten.wire.oip_client import Ask, Outputs

__all__ = ["Dialect", "GrpcDialect", "HttpDialect", "Message", "Reply", "unanswered"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One request: over HTTP method, path, headers and body; over gRPC the method's path, metadata and a message."""

    path: str
    body: bytes = b""
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """One answer. `status` is that of HTTP; a gRPC wire raises for any but OK."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


class Dialect(Protocol):
    """One protocol's way to say it. Every reader raises `RequestError`."""

    def infer(self, ask: Ask) -> Message:
        """Ask for inference. Raises `DataError` for arrays that cannot be sent."""
        ...

    def outputs(self, reply: Reply) -> Outputs:
        """Read what was inferred."""
        ...

    def metadata(self, model: str, version: str) -> Message:
        """Ask for a model's signature."""
        ...

    def signature(self, reply: Reply) -> Signature:
        """Read it."""
        ...

    def ready(self, model: str, version: str) -> Message:
        """Ask whether a model is ready, or with an empty name the server."""
        ...

    def is_ready(self, reply: Reply, model: str) -> bool:
        """Read it."""
        ...


class HttpDialect:
    """Binary tensors over HTTP."""

    def infer(self, ask: Ask) -> Message:
        """Ask for inference."""
        headers, body = oip_client.http_infer(ask)
        return Message(path=f"{oip_client.model_path(ask.model, ask.version)}/infer", headers=headers, body=body)

    def outputs(self, reply: Reply) -> Outputs:
        """Read what was inferred."""
        return oip_client.read_http_infer(reply.headers, _good(reply).body)

    def metadata(self, model: str, version: str) -> Message:
        """Ask for a model's signature."""
        return Message(method="GET", path=oip_client.model_path(model, version))

    def signature(self, reply: Reply) -> Signature:
        """Read it."""
        return oip_client.decode_metadata(_good(reply).body)

    def ready(self, model: str, version: str) -> Message:
        """Ask for readiness."""
        path = f"{oip_client.model_path(model, version)}/ready" if model else "/v2/health/ready"
        return Message(method="GET", path=path)

    def is_ready(self, reply: Reply, model: str) -> bool:
        """Read it."""
        if reply.status in (404, 503):
            return False
        try:
            return bool(msgspec.json.decode(_good(reply).body, type=dict[str, object]).get("ready", True))
        except msgspec.MsgspecError:
            # Servers of older revisions say it by the status alone.
            return True


class GrpcDialect:
    """Raw tensors over gRPC."""

    def __init__(self) -> None:
        # Only who speaks gRPC loads protobuf.
        from hasten.wire import oip_grpc_client

        self._wire = oip_grpc_client

    def infer(self, ask: Ask) -> Message:
        """Ask for inference."""
        metadata = {LANE_HEADER: ask.lane} if ask.lane else {}
        return self._message("ModelInfer", self._wire.grpc_infer(ask), metadata)

    def outputs(self, reply: Reply) -> Outputs:
        """Read what was inferred."""
        return self._wire.read_grpc_infer(reply.body)

    def metadata(self, model: str, version: str) -> Message:
        """Ask for a model's signature."""
        return self._message("ModelMetadata", self._wire.named("ModelMetadata", model, version))

    def signature(self, reply: Reply) -> Signature:
        """Read it."""
        return self._wire.read_grpc_metadata(reply.body)

    def ready(self, model: str, version: str) -> Message:
        """Ask for readiness."""
        if not model:
            return self._message("ServerReady", b"")
        return self._message("ModelReady", self._wire.named("ModelReady", model, version))

    def is_ready(self, reply: Reply, model: str) -> bool:
        """Read it."""
        return self._wire.read_flag("ModelReady" if model else "ServerReady", reply.body)

    def _message(self, method: str, body: bytes, metadata: Mapping[str, str] | None = None) -> Message:
        return Message(path=f"{self._wire.PATH}{method}", body=body, headers=metadata or {})


def _good(reply: Reply) -> Reply:
    if reply.status != 200:
        raise oip_client.failure(reply.status, reply.headers, reply.body)
    return reply


def unanswered(error: Exception) -> RequestError:
    """The error of a request whose connection broke."""
    return RequestError(f"The server does not answer: {error or type(error).__name__}.", code="connection")
