"""One decision for every request of every transport: who may, and not too often. Refusals that matter go on record.

HTTP and gRPC share one guard, so that a client has one allowance, whichever way it comes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping

from hasten.errors import RequestError
from hasten.serve.access import REPOSITORY_CONTROL, Access, Caller, Operation
from hasten.serve.audit import audit
from hasten.serve.rate import Rate, Rates

__all__ = ["Guard"]


class Guard:
    """`access` says who may, `rate` how often each token may ask. Without tokens all clients are one; probes, and what
    is refused, cost nothing.
    """

    def __init__(
        self, access: Access | None = None, rate: Rate | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._access = access or Access()
        self._rates = None if rate is None else Rates(rate)
        self._clock = clock

    def admit_page(self, headers: Mapping[str, str]) -> None:
        """As `Access.admit_page`."""
        self._access.admit_page(headers)

    def decide(self, operation: Operation, authorization: str | None, *, counts: bool = True) -> Caller:
        """As `Access.decide`; what `counts` is taken from the client's allowance too. Raises `RequestError`, also
        rate_limited.
        """
        try:
            caller = self._access.decide(operation, authorization)
        except RequestError as error:
            if error.code != "not_found" and operation in REPOSITORY_CONTROL:
                audit("refused", operation=operation.words, code=error.code)
            raise
        if counts:
            self.count(operation, authorization)
        return caller

    def count(self, operation: Operation, authorization: str | None) -> None:
        """Take a request of a client that was let in from its allowance. Raises `RequestError` (rate_limited)."""
        if self._rates is None or operation.scope is None:
            return
        wait_s = self._rates.take(self._client(authorization), self._clock())
        if wait_s:
            raise RequestError("Too many requests with this token.", code="rate_limited", retry_after_s=wait_s)

    def _client(self, authorization: str | None) -> bytes:
        """Only tokens that are known come here, so that there are not more clients than tokens."""
        if not self._access.has_tokens or authorization is None:
            return b""
        return hashlib.sha256(authorization.partition(" ")[2].strip().encode()).digest()
