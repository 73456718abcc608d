"""A client for servers of the Open Inference Protocol v2, over HTTP and gRPC, blocking and asynchronous.

    with hasten.client.connect("http://127.0.0.1:8000") as client:
        outputs = client.infer("model", {"x": array}, timeout_s=1.0)
        outputs["y"], outputs.variant

`grpc://HOST:PORT` speaks gRPC. Errors are `RequestError`; its `code` says what happened. Requests that a server shed,
that never reached it, or whose answer was lost are sent again until the timeout: inference changes nothing, so that
doing it twice is harmless.
"""

from __future__ import annotations

from hasten.client.client import AsyncClient, Client, connect, connect_async
from hasten.client.retry import Retry
from hasten.wire.oip_client import Outputs

__all__ = ["AsyncClient", "Client", "Outputs", "Retry", "connect", "connect_async"]
