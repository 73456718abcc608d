"""A real server with gRPC beside HTTP, and an independent client of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hasten.bundle.read import Bundle
from hasten.serve.plan import Rules
from hasten.serve.server import Front, Options, Running, serve_bundle


@pytest.fixture(scope="module")
def server(bundle: Bundle) -> Iterator[Running]:
    with serve_bundle(bundle, Options(front=Front(grpc=("127.0.0.1", 0)))) as running:
        yield running


@pytest.fixture
def own_server(bundle: Bundle) -> Iterator[Running]:
    """For tests that stop the engine: nobody else uses this server. One request waits, no more."""
    with serve_bundle(bundle, Options(rules=Rules(queue_capacity=1), front=Front(grpc=("127.0.0.1", 0)))) as running:
        yield running


@pytest.fixture
def channel(server: Running) -> Iterator[Any]:
    grpc = pytest.importorskip("grpc", reason="gRPC's own library calls the server")
    with grpc.insecure_channel(server.grpc) as opened:
        yield opened
