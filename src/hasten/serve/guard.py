"""One decision for every request of every transport: who may, and not too often. Refusals that matter go on record.

HTTP and gRPC share one guard, so that a client has one allowance, whichever way it comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from hasten.errors import RequestError
from hasten.serve.access import NOBODY, REPOSITORY_CONTROL, Access, Caller, Operation
from hasten.serve.audit import audit
from hasten.serve.rate import Rate, Rates

__all__ = ["Guard"]


class Guard:
    """`access` says who may, `rate` how often each token may ask, or each certificate where there are no tokens, and
    `tenants` who has a rate of its own. Clients with neither token nor certificate are one; probes, and what is
    refused, cost nothing.
    """

    def __init__(
        self,
        access: Access | None = None,
        rate: Rate | None = None,
        clock: Callable[[], float] = time.monotonic,
        tenants: Mapping[str, Rate | None] | None = None,
    ) -> None:
        self._access = access or Access()
        self._rates = Rates(rate, tenants) if rate or tenants else None
        self._clock = clock

    def admit_page(self, headers: Mapping[str, str]) -> None:
        """As `Access.admit_page`."""
        self._access.admit_page(headers)

    def decide(
        self, operation: Operation, authorization: str | None, peer: Caller = NOBODY, *, counts: bool = True
    ) -> Caller:
        """As `Access.decide`; what `counts` is taken from the client's allowance too. Raises `RequestError`, also
        rate_limited.
        """
        try:
            caller = self._access.decide(operation, authorization, peer)
        except RequestError as error:
            if error.code != "not_found" and operation in REPOSITORY_CONTROL:
                audit("refused", operation=operation.words, code=error.code)
            raise
        if counts:
            self.count(operation, caller)
        return caller

    def count(self, operation: Operation, caller: Caller) -> None:
        """Take a request of a client that was let in from its allowance. Raises `RequestError` (rate_limited)."""
        if self._rates is None or operation.scope is None:
            return
        wait_s = self._rates.take(caller.client, caller.tenant, self._clock())
        if wait_s:
            raise RequestError("Too many requests of this client.", code="rate_limited", retry_after_s=wait_s)
