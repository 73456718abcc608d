"""Who may do what: one decision, keyed by operation, for every route, alias and transport.

Transports translate what they carry (a path, a method of a service) into an `Operation` and ask `Access.decide` with
the client's `authorization` value; HTTP asks `Access.admit_page` too, which keeps other people's web pages out. Nothing
here knows a path. Tokens are kept as SHA-256 digests and compared in constant time.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from hasten.errors import RequestError, UsageError

__all__ = ["NOBODY", "REPOSITORY_CONTROL", "Access", "Caller", "Operation", "Scope"]

_SHORTEST_TOKEN = 16
_KNOWN_HOSTS = 256


class Scope(enum.Enum):
    """What a token is good for."""

    INFER = "infer"
    ADMIN = "admin"
    METRICS = "metrics"


class Operation(enum.Enum):
    """Everything that a client can ask for, and the scope that it needs; probes of orchestrators need none."""

    LIVE = ("live", None)
    READY = ("ready", None)
    SERVER_METADATA = ("server metadata", Scope.INFER)
    MODEL_METADATA = ("model metadata", Scope.INFER)
    MODEL_READY = ("model ready", Scope.INFER)
    MODEL_CONFIG = ("model configuration", Scope.INFER)
    INFER = ("infer", Scope.INFER)
    STATISTICS = ("statistics", Scope.METRICS)
    METRICS = ("metrics", Scope.METRICS)
    REPOSITORY_INDEX = ("repository index", Scope.INFER)
    LOAD = ("load", Scope.ADMIN)
    UNLOAD = ("unload", Scope.ADMIN)
    API = ("API description", None)

    def __init__(self, words: str, scope: Scope | None) -> None:
        self.words = words
        self.scope = scope

    # An enum's own runs in Python, several times a request; members are one of a kind all the same.
    __hash__ = object.__hash__


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who asks, by token or certificate: the tenant for whom requests are counted, and the lane in which they go. Both
    may be empty. Tokens and certificates are told apart by `client`, whosever they are.
    """

    tenant: str = ""
    lane: str = ""
    client: str = field(default="", compare=False)


# Whoever needs no token and shows no certificate.
NOBODY = Caller()

# What changes the models of a running server; it does not exist unless it is switched on.
REPOSITORY_CONTROL = frozenset({Operation.LOAD, Operation.UNLOAD})


class Access:
    """The rules of one server.

    `tokens` by scope; one token may stand in several. `callers` tells whose a token is; one of which it tells nothing
    is a tenant of its own. Without any token infer and metrics are open to whoever reaches the server, admin never is.
    `off` are operations that do not exist here. `hosts` are the names under which browsers
    may know the server (`None`: any), beside localhost and literal addresses, which no foreign DNS can point here;
    `origins` are web pages of others that may use it. Raises `UsageError` for a token that is too short or has odd
    characters.
    """

    def __init__(
        self,
        tokens: Mapping[Scope, Iterable[str]] | None = None,
        *,
        off: Iterable[Operation] = REPOSITORY_CONTROL,
        hosts: Iterable[str] | None = (),
        origins: Iterable[str] = (),
        callers: Mapping[str, Caller] | None = None,
    ) -> None:
        self._scopes = _by_digest(tokens or {})
        known = {_digest(token): caller for token, caller in (callers or {}).items()}
        self._callers = {digest: _named(digest, known.get(digest, NOBODY)) for digest in self._scopes}
        self._off = frozenset(off)
        self._hosts = None if hosts is None else {"localhost", *(host.lower() for host in hosts)}
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._good_hosts: set[str] = set()

    @property
    def has_tokens(self) -> bool:
        """Whether clients must show a token."""
        return bool(self._scopes)

    def has_token_for(self, scope: Scope) -> bool:
        """Whether any token is good for `scope`."""
        return any(scope in scopes for scopes in self._scopes.values())

    @property
    def tenants(self) -> frozenset[str]:
        """Whose the tokens are."""
        return frozenset(caller.tenant for caller in self._callers.values())

    def decide(self, operation: Operation, authorization: str | None, peer: Caller = NOBODY) -> Caller:
        """Return who asks, where the operation is allowed: whose the token is, or where none is needed `peer`, whom the
        certificate names. Raises `RequestError`: not_found where it is switched off,
        unauthenticated without a known token, forbidden where the token is good for something else.
        """
        if operation in self._off:
            raise RequestError("There is nothing at this path.", code="not_found")
        scope = operation.scope
        if scope is None or (not self._scopes and scope is not Scope.ADMIN):
            return peer
        known = self._known(authorization or "")
        if known is None:
            raise RequestError(
                f"This needs a token of scope {scope.value!r}, as the header Authorization: Bearer TOKEN.",
                code="unauthenticated",
            )
        if scope not in self._scopes[known]:
            raise RequestError(f"The token is not good for scope {scope.value!r}.", code="forbidden")
        return self._callers[known]

    def admit_page(self, headers: Mapping[str, str]) -> None:
        """Return unless a browser acts here for a page that is not ours: by DNS rebinding (a foreign Host) or across
        origins (Origin, Sec-Fetch-Site). Programs send neither Origin nor Sec-Fetch-Site. Raises `RequestError`.
        """
        host = headers.get("host", "")
        if host not in self._good_hosts:
            self._check_host(host)
        if "origin" not in headers and "sec-fetch-site" not in headers:
            return
        origin = headers.get("origin", "").lower()
        if origin in self._origins:
            return
        site = headers.get("sec-fetch-site", "same-origin").lower()
        if site not in ("same-origin", "none") or (origin and origin.partition("://")[2] != host.lower()):
            raise RequestError("Pages of other origins may not use this server.", code="forbidden")

    def _check_host(self, host: str) -> None:
        if self._hosts is not None:
            name = _without_port(host)
            if name not in self._hosts and not _is_address(name):
                raise RequestError(
                    "This server is not known by that Host; --allow-host NAME makes it known.", code="forbidden"
                )
        if len(self._good_hosts) < _KNOWN_HOSTS:
            self._good_hosts.add(host)

    def _known(self, authorization: str) -> bytes | None:
        """The digest of the token, where it is one of ours."""
        kind, _, token = authorization.partition(" ")
        if kind.lower() != "bearer":
            return None
        digest, found = _digest(token.strip()), None
        # All are compared, whichever fits: the time tells nothing.
        for known in self._scopes:
            if hmac.compare_digest(known, digest):
                found = known
        return found


def _by_digest(tokens: Mapping[Scope, Iterable[str]]) -> dict[bytes, frozenset[Scope]]:
    scopes: dict[bytes, frozenset[Scope]] = {}
    for scope, several in tokens.items():
        for token in several:
            if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
                raise UsageError(
                    f"A token of scope {scope.value!r} is shorter than {_SHORTEST_TOKEN} characters or has odd ones.",
                    remedy="Make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
                )
            digest = _digest(token)
            scopes[digest] = scopes.get(digest, frozenset()) | {scope}
    return scopes


def _named(digest: bytes, caller: Caller) -> Caller:
    """A caller without a name gets one that nobody else has."""
    client = digest.hex()
    return replace(caller, tenant=caller.tenant or client[:16], client=client)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _without_port(host: str) -> str:
    name = host.lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
