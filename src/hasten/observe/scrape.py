"""Read a server's metrics: one scrape over HTTP, taken apart into values by name and labels."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from hasten.errors import RequestError, UsageError

__all__ = ["Scrape", "Scraper", "read"]

Labels = Mapping[str, str]
# Far more than any server shows.
_LONGEST = 64 * 2**20


class Scrape:
    """Samples by name: pairs of labels and value."""

    def __init__(self, samples: Mapping[str, list[tuple[Labels, float]]]) -> None:
        self._samples = samples

    def of(self, name: str, model: str | None = None) -> list[tuple[Labels, float]]:
        """All samples called `name`, of one model where one is named."""
        found = self._samples.get(name, [])
        return found if model is None else [one for one in found if one[0].get("model") == model]

    def total(self, name: str, model: str) -> float:
        """The sum of a model's samples called `name`; 0 where there are none."""
        return sum(value for _, value in self.of(name, model))


def read(body: bytes) -> Scrape:
    """Return what a page in Prometheus' text format says. Raises `RequestError` where it is something else."""
    samples: dict[str, list[tuple[Labels, float]]] = {}
    try:
        for family in text_string_to_metric_families(body.decode()):
            for sample in family.samples:
                samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    except (ValueError, IndexError, KeyError) as error:
        raise RequestError("The answer is no page of metrics.", code="invalid") from error
    if "hasten_build_info" not in samples:
        raise RequestError("These are not the metrics of a hasten server.", code="invalid")
    return Scrape(samples)


class Scraper:
    """Scrapes one server. `token` is one of scope metrics, `ca` a PEM file of the authority of its certificate.

    Raises `UsageError` for a URL that is none.
    """

    def __init__(self, url: str, *, token: str = "", ca: str | None = None, timeout_s: float = 10.0) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{url!r} is no address of a server.", remedy="Write, for example, http://127.0.0.1:8000")
        self._address = (parts.hostname, _port(url))
        self._path = parts.path.rstrip("/") if parts.path.rstrip("/").endswith("/metrics") else "/metrics"
        self._context = ssl.create_default_context(cafile=ca) if parts.scheme == "https" else None
        self._headers = {"accept": "text/plain", **({"authorization": f"Bearer {token}"} if token else {})}
        self._timeout_s = timeout_s

    def scrape(self) -> Scrape:
        """Scrape once. Raises `RequestError`: connection where no answer came, else what the server says."""
        try:
            with self._connected() as connection:
                connection.request("GET", self._path, headers=self._headers)
                response = connection.getresponse()
                body = response.read(_LONGEST)
        except (OSError, http.client.HTTPException) as error:
            raise RequestError(
                f"{self._address[0]} gives no answer: {error}.",
                code="connection",
                remedy="Check that the server runs, and its address.",
            ) from error
        if response.status in (401, 403):
            raise RequestError(
                "The server wants a token of scope metrics.",
                code="unauthenticated" if response.status == 401 else "forbidden",
                remedy="Give one with --token-file FILE or HASTEN_METRICS_TOKEN.",
            )
        if response.status != 200:
            raise RequestError(f"The server answered {response.status} instead of its metrics.", code="not_found")
        return read(body)

    @contextmanager
    def _connected(self) -> Generator[http.client.HTTPConnection]:
        host, port = self._address
        connection = (
            http.client.HTTPConnection(host, port, timeout=self._timeout_s)
            if self._context is None
            else http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._context)
        )
        try:
            yield connection
        finally:
            connection.close()


def _port(url: str) -> int | None:
    try:
        return urlsplit(url if "://" in url else f"http://{url}").port
    except ValueError as error:
        raise UsageError(f"{url!r} has no good port.", remedy="Write, for example, http://127.0.0.1:8000") from error
