"""What `hasten bench` can aim at: a model, a bundle, or the URL of a running server. Part of the facade.

A model runs as most teams would run it: on the usual engine of its format with that engine's defaults. A bundle runs
its picked variant. Whatever is compared gets the same samples, each in the form that its own signature asks for.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np

from hasten.bundle.read import Bundle, open_bundle
from hasten.client.http_wire import connection_to, exchange
from hasten.data.dataset import Dataset
from hasten.data.feed import check_fits, feed, sample_for
from hasten.data.open import open_data
from hasten.engine.base import reference_engine
from hasten.engine.isolate import load_isolated
from hasten.errors import DataError, RequestError, UsageError
from hasten.model.open import open_model
from hasten.spec.signature import Signature
from hasten.spec.target import Target
from hasten.wire.oip_client import decode_metadata, encode_request, failure
from hasten.zoo.open import PREFIX, zoo_data, zoo_model

__all__ = ["LocalTarget", "Opened", "UrlTarget", "open_target", "open_targets"]

Tensors = dict[str, np.ndarray[Any, Any]]
_SAMPLES = 32
_TIMEOUT_S = 60
_SCHEMES = ("http://", "https://")


class LocalTarget:
    """One loaded session; callers take turns, as they would on one engine instance."""

    def __init__(self, session: Any, samples: Sequence[Tensors]) -> None:
        self._session = session
        self._samples = samples
        self._lock = threading.Lock()

    def call(self, index: int) -> None:
        """Run one sample. Raises `EngineError`."""
        with self._lock:
            self._session.run(self._samples[index % len(self._samples)])

    def rest(self) -> None:
        """Stop the engine's process until the next call. Nobody calls meanwhile."""
        self._session.rest()


class UrlTarget:
    """A running server; each calling thread keeps its own connection. `host` may begin with `https://`."""

    def __init__(self, host: str, path: str, bodies: Sequence[tuple[bytes, dict[str, str]]]) -> None:
        self._host = host
        self._path = path
        self._bodies = bodies
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []

    def call(self, index: int) -> None:
        """Send one request and read the answer.

        Raises `RequestError` for anything but success: its code is the server's own, or `timeout` or `connection`
        where none came.
        """
        body, headers = self._bodies[index % len(self._bodies)]
        connection, fresh = self._connection()
        try:
            reply = exchange(connection, "POST", f"{self._path}/infer", body, headers)
        except RequestError as error:
            if fresh or error.code != "connection":
                raise
            # A server may close a connection that has rested for some seconds; that is no failure of this request.
            reply = exchange(connection, "POST", f"{self._path}/infer", body, headers)
        if reply.status != 200:
            raise failure(reply.status, reply.headers, reply.body)

    def rest(self) -> None:
        """Nothing: what a server does between requests is its own affair."""

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """This thread's connection, and whether it has not been used yet."""
        fresh = not hasattr(self._local, "connection")
        if fresh:
            self._local.connection = connection_to(self._host, _TIMEOUT_S)
            self._connections.append(self._local.connection)
        return self._local.connection, fresh

    def close(self) -> None:
        """Close the connections of all threads."""
        for connection in self._connections:
            connection.close()


@dataclass(frozen=True, slots=True)
class Opened:
    """Targets in the order of their names, and the samples that they get: where from, and how many."""

    targets: list[LocalTarget | UrlTarget]
    data: str
    samples: int


class _Samples(Protocol):
    """Samples that fit several targets, each in its own form."""

    name: str
    count: int

    def fit(self, signature: Signature, whose: str) -> list[Tensors]:
        """Return inputs for a model of this signature. Raises `DataError` where they do not fit."""
        ...


class _Aim(Protocol):
    """Something that a name stands for, looked at and not yet loaded."""

    def brings(self) -> _Samples | None:
        """The samples that come with it, if any."""
        ...

    def open(self, samples: _Samples, stack: ExitStack) -> LocalTarget | UrlTarget:
        """Load or reach it; what must be closed goes on the stack."""
        ...


@contextmanager
def open_targets(names: Sequence[str], data: str | None) -> Generator[Opened]:
    """Open targets that all get the same samples: those of `data`, or what one of them brings along.

    Zoo models bring their data, bundles their golden samples. Raises `UserError` for what is wrong with a name or the
    data, before anything is loaded where that can be seen.
    """
    aims = [_aim(name) for name in names]
    samples = _from_data(data) if data else _brought(aims)
    with ExitStack() as stack:
        targets = [aim.open(samples, stack) for aim in aims]
        yield Opened(targets=targets, data=samples.name, samples=samples.count)


@contextmanager
def open_target(target: str, data: str | None) -> Generator[LocalTarget | UrlTarget]:
    """Open one target."""
    with open_targets([target], data) as opened:
        yield opened.targets[0]


class _DataSamples:
    """Samples of a dataset, evenly spread over it."""

    def __init__(self, dataset: Dataset) -> None:
        self.name = dataset.name
        self._dataset = dataset
        spread = np.linspace(0, len(dataset) - 1, min(_SAMPLES, len(dataset)))
        self._subset = dataset.subset([int(position) for position in spread])
        self.count = len(self._subset)

    def fit(self, signature: Signature, whose: str) -> list[Tensors]:
        """Raw pixels where preprocessing is in the model's graph, else what the data gives."""
        samples = [sample_for(signature, self._subset, i) for i in range(len(self._subset))]
        check_fits(signature, samples[0], f"Sample 0 of {self.name!r}")
        return [feed(signature, [sample]) for sample in samples]


class _GoldenSamples:
    """The golden samples of a bundle: a few, and shaped for its own signature already."""

    def __init__(self, bundle: Bundle) -> None:
        self.name = f"golden samples of {bundle.path}"
        self._inputs = bundle.golden(bundle.manifest.picked).inputs
        self.count = len(self._inputs)

    def fit(self, signature: Signature, whose: str) -> list[Tensors]:
        for inputs in self._inputs:
            problem = signature.problem(inputs)
            if problem:
                raise DataError(
                    f"The {self.name} do not fit {whose}: {problem}",
                    remedy="Give data that fits both with --data.",
                )
        return self._inputs


class _ModelAim:
    def __init__(self, name: str) -> None:
        self._name = name
        self._path = zoo_model(name) if name.startswith(PREFIX) else Path(name)
        if not self._path.is_file():
            raise UsageError(
                f"{name} does not exist.", remedy="Give a model, a bundle folder, or http://HOST/v2/models/NAME."
            )
        # Opened first: what is wrong with a file is better said by hasten than by an engine.
        self._target = Target(engine=reference_engine(open_model(self._path).format))

    def brings(self) -> _Samples | None:
        return _DataSamples(zoo_data(self._name)) if self._name.startswith(PREFIX) else None

    def open(self, samples: _Samples, stack: ExitStack) -> LocalTarget:
        session = stack.enter_context(load_isolated(self._path, self._target))
        return LocalTarget(session, samples.fit(session.signature, self._name))


class _BundleAim:
    def __init__(self, name: str) -> None:
        self._name = name
        self._bundle = open_bundle(name)

    def brings(self) -> _Samples | None:
        return _GoldenSamples(self._bundle)

    def open(self, samples: _Samples, stack: ExitStack) -> LocalTarget:
        picked = self._bundle.manifest.picked
        inputs = samples.fit(self._bundle.manifest.signature, self._name)
        target = self._bundle.entry(picked).variant.target
        return LocalTarget(stack.enter_context(load_isolated(self._bundle.model_path(picked), target)), inputs)


class _UrlAim:
    def __init__(self, name: str) -> None:
        self._name = name
        parts = urlsplit(name)
        self._path = parts.path.rstrip("/")
        self._host = f"https://{parts.netloc}" if parts.scheme == "https" else parts.netloc
        if not parts.hostname or not self._path.startswith("/v2/models/"):
            raise UsageError(f"{name} names no model.", remedy="Write http://HOST:PORT/v2/models/NAME.")

    def brings(self) -> _Samples | None:
        return None

    def open(self, samples: _Samples, stack: ExitStack) -> UrlTarget:
        signature = self._signature()
        inputs = samples.fit(signature, self._name)
        target = UrlTarget(self._host, self._path, [encode_request(one, signature) for one in inputs])
        stack.callback(target.close)
        return target

    def _signature(self) -> Signature:
        connection = connection_to(self._host, _TIMEOUT_S)
        try:
            reply = exchange(connection, "GET", self._path, None, {})
        except RequestError as error:
            raise UsageError(
                f"{self._name} cannot be reached. {error.message}", remedy="Is it running there?"
            ) from error
        finally:
            connection.close()
        if reply.status != 200:
            words = f"{self._name} answered {reply.status}: {reply.body[:200]!r}."
            raise UsageError(words, remedy="Check the model's name.")
        return decode_metadata(reply.body)


def _aim(name: str) -> _Aim:
    if name.startswith(_SCHEMES):
        return _UrlAim(name)
    return _BundleAim(name) if Path(name).is_dir() else _ModelAim(name)


def _from_data(source: str) -> _DataSamples:
    return _DataSamples(zoo_data(source) if source.startswith(PREFIX) else open_data(source))


def _brought(aims: Sequence[_Aim]) -> _Samples:
    """What a target brings along: data before golden samples, which are few."""
    found = [samples for aim in aims if (samples := aim.brings()) is not None]
    if not found:
        raise DataError("No data was given.", remedy="Give representative data with --data.")
    return max(found, key=lambda samples: samples.count)
