"""From a configuration to what the server needs: access, certificates, bounds. Reads the files that the configuration
names, and tokens from the environment.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path

from hasten.engine.confine import WorkerLimits
from hasten.errors import UsageError
from hasten.serve.access import REPOSITORY_CONTROL, Access, Caller, Scope
from hasten.serve.config import Limit, ServeConfig
from hasten.serve.grpc.limits import GrpcLimits
from hasten.serve.http.limits import HttpLimits
from hasten.serve.plan import Rules, check_lane, lanes_of
from hasten.serve.policy import Lane
from hasten.serve.pool import Isolation
from hasten.serve.rate import Rate
from hasten.serve.server import Front, Options
from hasten.serve.tls import server_context
from hasten.wire.base import Limits

__all__ = ["front_of", "limits_of", "options_of", "rules_of", "token_variable", "workers_of"]


def options_of(config: ServeConfig, environment: Mapping[str, str]) -> Options:
    """Return all that is said, but where to listen and who observes. Raises `UserError`."""
    isolation, workers = workers_of(config)
    return Options(
        rules=rules_of(config),
        isolation=isolation,
        workers=workers,
        limits=limits_of(config),
        front=front_of(config, environment),
    )


def front_of(config: ServeConfig, environment: Mapping[str, str]) -> Front:
    """Return how the server meets its clients. Raises `UserError` for files that are missing or do not fit, and for
    repository control that nobody could use.
    """
    callers: dict[str, Caller] = {}
    lanes = lanes_of(config.lanes)
    tokens = {scope: _tokens(scope, config, environment, lanes, callers) for scope in Scope}
    guarded = any(tokens.values())
    access = Access(
        tokens,
        off=() if config.repository_control else REPOSITORY_CONTROL,
        # Where a token is needed, a foreign name leads nobody in; elsewhere it may be a stranger's page.
        hosts=None if guarded and not config.http.allow_hosts else config.http.allow_hosts,
        origins=config.http.allow_origins,
        callers=callers,
    )
    if config.repository_control and not access.has_token_for(Scope.ADMIN):
        raise UsageError(
            "Repository control needs a token of scope 'admin'.",
            remedy="Give one with --admin-tokens FILE or HASTEN_ADMIN_TOKEN.",
        )
    tenants = _tenant_rates(config, access)
    return Front(
        access=access,
        rate=_rate(config.limits),
        tenant_rates=tenants,
        tls=_context(config),
        grpc_tls=_context(config, "h2"),
        grpc_limits=_grpc_limits(config),
        limits=_http_limits(config),
        unread=config.size.unread_bytes,
        drain_delay_s=config.drain.delay_s,
        grace_s=config.drain.grace_s,
    )


def token_variable(scope: Scope) -> str:
    """The environment variable that holds a token of this scope."""
    return f"HASTEN_{scope.name}_TOKEN"


def limits_of(config: ServeConfig) -> Limits:
    """Return the codec's bounds."""
    return Limits(body=config.size.body_bytes, depth=config.size.json_depth)


def rules_of(config: ServeConfig) -> Rules:
    """Return what is said about scheduling."""
    return Rules(
        queue_capacity=config.queue_capacity,
        lanes=config.lanes,
        scheduling=config.scheduling,
        models=config.models,
    )


def workers_of(config: ServeConfig) -> tuple[Isolation, WorkerLimits]:
    """Return where engines run, and what each process may take. Raises `UsageError` for a bound that nothing keeps."""
    given = config.workers
    if given.isolation == "none" and given.memory_mb:
        raise UsageError(
            "Without processes of their own, engines have no memory bound of their own.",
            remedy="Leave memory_mb out, or isolate them: --isolation process.",
        )
    limits = {name: getattr(given, name) for name in WorkerLimits.__struct_fields__}
    return given.isolation, WorkerLimits(**limits)


def _rate(given: Limit) -> Rate | None:
    return Rate(requests_per_s=given.requests_per_s, burst=given.burst) if given.requests_per_s else None


def _tenant_rates(config: ServeConfig, access: Access) -> dict[str, Rate | None]:
    """The rates of tenants. Raises `UsageError` for one that nobody can be."""
    given = config.limits.tenants
    # Whom an authority names is not known before they come.
    by_certificate = bool(config.tls.client_ca) and not access.has_tokens
    for name in () if by_certificate else given.keys() - access.tenants:
        raise UsageError(
            f"limits.tenants: no token is of the tenant {name!r}.", remedy=f"Write tenant={name} behind a token."
        )
    return {name: _rate(limit) for name, limit in given.items()}


def _http_limits(config: ServeConfig) -> HttpLimits:
    size, times = config.size, config.times
    return HttpLimits(
        header_bytes=size.header_bytes,
        chunks=size.chunks,
        buffered_bytes=size.buffered_bytes,
        connections=size.connections,
        header_s=times.header_s,
        body_s=times.body_s,
        stalled_s=times.stalled_s,
        idle_s=times.idle_s,
    )


def _grpc_limits(config: ServeConfig) -> GrpcLimits:
    """The bounds of gRPC. Raises `UsageError` where streams would end before they are held back."""
    grpc, size, times = config.grpc, config.size, config.times
    if grpc.stream_end_bytes < grpc.stream_hold_bytes:
        raise UsageError(
            f"grpc: streams would end with {grpc.stream_end_bytes} bytes unread and be held back with "
            f"{grpc.stream_hold_bytes}.",
            remedy="Make stream_end_bytes at least stream_hold_bytes.",
        )
    return GrpcLimits(
        metadata=size.header_bytes,
        buffered=size.buffered_bytes,
        connections=size.connections,
        handshake_s=times.header_s,
        receipt_s=times.body_s,
        delivery_s=times.stalled_s,
        stream_hold=grpc.stream_hold_bytes,
        stream_end=grpc.stream_end_bytes,
    )


def _tokens(
    scope: Scope,
    config: ServeConfig,
    environment: Mapping[str, str],
    lanes: Sequence[Lane],
    callers: dict[str, Caller],
) -> list[str]:
    """The tokens of a scope: of the file where one is named, else of the variable. Puts whose they are in `callers`."""
    file = getattr(config.tokens, scope.value)
    where, value = file or token_variable(scope), environment.get(token_variable(scope), "")
    lines = _lines(file) if file else [value] if value else []
    tokens: list[str] = []
    for number, line in enumerate(lines, 1):
        token, *words = line.split() or [""]
        tokens.append(token)
        caller = _caller(words, f"{where}, token {number}", lanes)
        if caller is not None and callers.setdefault(token, caller) != caller:
            raise UsageError(f"{where}, token {number} stands elsewhere for another tenant.", remedy="Make a new one.")
    return tokens


def _lines(file: str) -> list[str]:
    try:
        lines = Path(file).read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The token file {file} cannot be read.", remedy="Check the path.") from error
    written = [line for line in lines if line.strip()]
    if not written:
        raise UsageError(f"The token file {file} is empty.", remedy="Write one token a line.")
    return written


def _caller(words: Sequence[str], where: str, lanes: Sequence[Lane]) -> Caller | None:
    """What stands behind a token on its line; the token itself never stands in an error."""
    found = {name: value for name, _, value in (word.partition("=") for word in words)}
    tenant, lane = found.pop("tenant", ""), found.pop("lane", "")
    if found or len(words) != bool(tenant) + bool(lane):
        raise UsageError(
            f"{where}: what stands behind it is not understood.", remedy="Write TOKEN tenant=NAME lane=NAME."
        )
    if lane:
        check_lane(lane, lanes, where)
    return Caller(tenant=tenant, lane=lane) if words else None


def _context(config: ServeConfig, protocol: str = "http/1.1") -> ssl.SSLContext | None:
    tls = config.tls
    if not (tls.certificate or tls.key or tls.client_ca):
        return None
    if not (tls.certificate and tls.key):
        raise UsageError("TLS needs a certificate and its key.", remedy="Give both --tls-cert FILE and --tls-key FILE.")
    client_ca = Path(tls.client_ca) if tls.client_ca else None
    return server_context(Path(tls.certificate), Path(tls.key), client_ca, protocol)
