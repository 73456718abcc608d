"""What `hasten bench` can aim at: a model, a bundle, or the URL of a running server. Part of the facade.

A model runs as most teams would run it: on the usual engine of its format with that engine's defaults.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from hasten.bundle.read import open_bundle
from hasten.data.dataset import Dataset
from hasten.data.feed import check_fits, feed
from hasten.data.open import open_data
from hasten.engine.base import reference_engine
from hasten.engine.isolate import load_isolated
from hasten.errors import DataError, RequestError, UsageError
from hasten.model.open import open_model
from hasten.spec.signature import Signature
from hasten.spec.target import Target
from hasten.wire.oip_http import decode_metadata, encode_request
from hasten.zoo.open import PREFIX, zoo_data, zoo_model

__all__ = ["open_target"]

Tensors = dict[str, np.ndarray[Any, Any]]
_SAMPLES = 32


class LocalTarget:
    """One loaded session; callers take turns, as they would on one engine instance."""

    def __init__(self, session: Any, samples: Sequence[Tensors]) -> None:
        self._session = session
        self._samples = samples
        self._lock = threading.Lock()

    def call(self, index: int) -> None:
        """Run one sample."""
        with self._lock:
            self._session.run(self._samples[index % len(self._samples)])


class UrlTarget:
    """A running server; each calling thread keeps its own connection until the target is closed."""

    def __init__(self, host: str, path: str, bodies: Sequence[tuple[bytes, dict[str, str]]]) -> None:
        self._host = host
        self._path = path
        self._bodies = bodies
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []

    def call(self, index: int) -> None:
        """Send one request and read the answer. Raises `RequestError` for anything but success."""
        body, headers = self._bodies[index % len(self._bodies)]
        status, answer = _exchange(self._connection(), "POST", f"{self._path}/infer", body, headers)
        if status != 200:
            raise RequestError(f"The server answered {status}: {answer[:200]!r}.", code="internal")

    def _connection(self) -> http.client.HTTPConnection:
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection(self._host, timeout=60)
            self._connections.append(self._local.connection)
        return self._local.connection

    def close(self) -> None:
        """Close the connections of all threads."""
        for connection in self._connections:
            connection.close()


@contextmanager
def open_target(target: str, data: str | None) -> Generator[LocalTarget | UrlTarget]:
    """Open `target` with samples from `data`; bundles bring golden samples, zoo models their own data."""
    if target.startswith("http://"):
        with closing(_url_target(target, data)) as found:
            yield found
    elif Path(target).is_dir():
        bundle = open_bundle(target)
        picked = bundle.manifest.picked
        samples = _samples(data, bundle.manifest.signature) if data else bundle.golden(picked).inputs
        with load_isolated(bundle.model_path(picked), bundle.entry(picked).variant.target) as session:
            yield LocalTarget(session, samples)
    else:
        path = zoo_model(target) if target.startswith(PREFIX) else Path(target)
        if not path.is_file():
            raise UsageError(
                f"{target} does not exist.",
                remedy="Give a model, a bundle folder, or http://HOST/v2/models/NAME.",
            )
        source = data or (target if target.startswith(PREFIX) else None)
        # Opened first: what is wrong with a file is better said by hasten than by an engine.
        with load_isolated(path, Target(engine=reference_engine(open_model(path).format))) as session:
            yield LocalTarget(session, _samples(source, session.signature))


def _url_target(url: str, data: str | None) -> UrlTarget:
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if not path.startswith("/v2/models/"):
        raise UsageError(f"{url} names no model.", remedy="Write http://HOST:PORT/v2/models/NAME.")
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        status, body = _exchange(connection, "GET", path, None, {})
    finally:
        connection.close()
    if status != 200:
        raise UsageError(f"{url} answered {status}: {body[:200]!r}.", remedy="Check the model's name.")
    signature = decode_metadata(body)
    return UrlTarget(parts.netloc, path, [encode_request(s, signature) for s in _samples(data, signature)])


def _exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None,
    headers: dict[str, str],
) -> tuple[int, bytes]:
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise UsageError(f"The server does not answer: {error}.", remedy="Is it running there?") from error


def _samples(source: str | None, signature: Signature) -> list[Tensors]:
    if source is None:
        raise DataError("No data was given.", remedy="Give representative data with --data.")
    dataset: Dataset = zoo_data(source) if source.startswith(PREFIX) else open_data(source)
    check_fits(signature, dataset.inputs(0), f"Sample 0 of {dataset.name!r}")
    return [feed(signature, [dataset.inputs(i)]) for i in range(min(_SAMPLES, len(dataset)))]
