"""serve.toml: everything that a server can be told, as one value that is checked as a whole.

Flags stand over environment variables, and both over the file; the command line joins flags and variables and gives
them here as `overrides`. Paths in the file are relative to it. The published JSON Schema (docs/serve.schema.json) is
made from these types.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hasten.engine.confine import WorkerLimits
from hasten.errors import ConfigError
from hasten.spec.values import Value

__all__ = [
    "Drain",
    "Grpc",
    "Http",
    "LaneTable",
    "Limit",
    "LimitTable",
    "Log",
    "ModelTable",
    "Scheduling",
    "ServeConfig",
    "Size",
    "Times",
    "Tls",
    "TokenFiles",
    "Workers",
    "json_schema",
    "read_config",
]

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
LaneName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Http(Value, frozen=True):
    """Where the server listens, and for whom."""

    address: Annotated[str, Meta(description="HOST:PORT; port 0 takes a free one.")] = "127.0.0.1:8000"
    insecure: Annotated[
        bool, Meta(description="Allow an address that other machines reach without tokens or client certificates.")
    ] = False
    allow_hosts: Annotated[
        tuple[str, ...], Meta(description="Names under which clients know the server, beside localhost and addresses.")
    ] = ()
    allow_origins: Annotated[
        tuple[str, ...], Meta(description="Web pages that may use it, such as https://notebook.example.")
    ] = ()


class Grpc(Value, frozen=True):
    """Where the server speaks gRPC too; for whom, is as over HTTP."""

    address: Annotated[str, Meta(description="HOST:PORT; empty for no gRPC.")] = ""
    stream_hold_bytes: Annotated[
        int, Meta(ge=1, description="With so much of its answers unread, a stream's further requests are not taken.")
    ] = 8 * 2**20
    stream_end_bytes: Annotated[int, Meta(ge=1, description="With so much of its answers unread, a stream ends.")] = (
        64 * 2**20
    )


class Tls(Value, frozen=True):
    """PEM files; with `client_ca`, clients need a certificate of that authority."""

    certificate: str = ""
    key: str = ""
    client_ca: str = ""


class TokenFiles(Value, frozen=True):
    """Files with tokens, one a line, for each scope. Never the tokens themselves."""

    infer: str = ""
    admin: str = ""
    metrics: str = ""


class Size(Value, frozen=True):
    """Bounds on what clients may send and leave unread."""

    body_bytes: Positive = 64 * 2**20
    header_bytes: Positive = 32 * 2**10
    buffered_bytes: Annotated[int, Meta(ge=1, description="The bodies of all connections together.")] = 2**30
    unread_bytes: Annotated[
        int, Meta(ge=1, description="With so many bytes of all clients' answers unread, inference is refused.")
    ] = 2**30
    chunks: Positive = 65_536
    json_depth: Positive = 100
    connections: Positive = 1000


class Times(Value, frozen=True):
    """Seconds that a client may take."""

    header_s: Seconds = 10.0
    body_s: Seconds = 30.0
    stalled_s: Annotated[float, Meta(gt=0, description="How long it may leave an answer unread.")] = 30.0
    idle_s: Annotated[float, Meta(gt=0, description="How long a connection may rest between requests.")] = 75.0


class Log(Value, frozen=True):
    """The log: one JSON object a line."""

    file: Annotated[
        str, Meta(description="A file, or - for standard error; without one, only warnings and the audit go there.")
    ] = ""
    requests: Annotated[bool, Meta(description="A record for each request.")] = False


class LaneTable(Value, frozen=True):
    """A class of requests. Lanes stand in order of urgency."""

    name: LaneName
    priority: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="1 is most urgent; without it, the lane's place in the file. Equal ones share by weight."),
    ] = None
    weight: Annotated[float, Meta(gt=0, description="Share among lanes of one priority.")] = 1.0
    min_share: Annotated[
        float, Meta(ge=0, lt=1, description="Share of engine time kept for it whatever goes before it.")
    ] = 0.0
    max_age_s: Annotated[Seconds | None, Meta(description="The longest wait: then it is refused.")] = None
    deadline_s: Annotated[Seconds | None, Meta(description="The deadline of requests that name none.")] = None
    accuracy_floor: Annotated[
        float | None,
        Meta(description="The least accuracy, in the metric's own unit; the most, where lower is better."),
    ] = None
    background: Annotated[bool, Meta(description="Shed first under overload, down to its min_share.")] = False
    capacity: Annotated[Positive | None, Meta(description="Requests that may wait in it.")] = None


class Scheduling(Value, frozen=True):
    """How requests are scheduled, for every model."""

    default_lane: Annotated[
        str,
        Meta(description="For requests that name none; empty: the least urgent lane that is not background."),
    ] = ""
    tenant_capacity: Annotated[
        Positive | None, Meta(description="Requests of one tenant (token) that may wait for each model.")
    ] = None
    company: Annotated[
        Literal["adaptive", "window"],
        Meta(description="When a batch waits for more requests: where that is expected to pay, or always its time."),
    ] = "adaptive"
    ladder: Annotated[bool, Meta(description="Serve cheaper variants of the bundle under overload.")] = False
    window_s: Annotated[float, Meta(gt=0, description="Load is looked at once in so many seconds.")] = 0.5
    calm_s: Annotated[float, Meta(gt=0, description="Seconds of calm before a better variant serves again.")] = 6.0
    settle_s: Annotated[float, Meta(gt=0, description="Seconds from any step on the ladder to the next one up.")] = 10.0
    idle_s: Annotated[float, Meta(gt=0, description="Seconds of rest before an instance is stopped.")] = 60.0


class ModelTable(Value, frozen=True):
    """What is different for one model."""

    queue_capacity: Annotated[Positive | None, Meta(description="Requests that may wait for it.")] = None
    min_instances: Annotated[Positive | None, Meta(description="Engine instances at least.")] = None
    max_instances: Annotated[Positive | None, Meta(description="Engine instances at most.")] = None
    variants: Annotated[
        tuple[str, ...],
        Meta(description="Its ladder: variants of the bundle from normal load downwards, each faster than the last."),
    ] = ()
    cache_bytes: Annotated[
        int,
        Meta(ge=0, description="Room for answers to be given again: declares that equal inputs have equal answers."),
    ] = 0


class Limit(Value, frozen=True):
    """How often somebody may ask."""

    requests_per_s: Annotated[float, Meta(ge=0, description="For ever; 0: no limit.")] = 0.0
    burst: Annotated[int, Meta(ge=0, description="At once after a rest; 0: as many as in one second.")] = 0


class LimitTable(Limit, frozen=True):
    """How often each token may ask; without tokens each certificate, and without either all clients together."""

    tenants: Annotated[
        dict[str, Limit],
        Meta(description="Rates of their own: all tokens of a tenant together, or a certificate's subject (CN=NAME)."),
    ] = {}


class Workers(WorkerLimits, frozen=True):
    """Where engines run, and what each may take."""

    isolation: Annotated[
        Literal["process", "none"],
        Meta(description="A process for each engine instance; or none: in the server, which a crash of one ends."),
    ] = "process"


class Drain(Value, frozen=True):
    """How the server ends."""

    delay_s: Annotated[
        float, Meta(ge=0, description="How long it serves on after it is not ready: what the load balancer needs.")
    ] = 1.0
    grace_s: Annotated[float, Meta(ge=0, description="How long what is under way may take then.")] = 30.0


class ServeConfig(Value, frozen=True):
    """The content of serve.toml."""

    bundles: Annotated[tuple[str, ...], Meta(description="Folders of bundles.")] = ()
    queue_capacity: Annotated[int, Meta(ge=1, description="Requests that may wait for each model.")] = 256
    repository_control: Annotated[bool, Meta(description="Let holders of an admin token load and unload models.")] = (
        False
    )
    http: Http = Http()
    grpc: Grpc = Grpc()
    tls: Tls = Tls()
    tokens: TokenFiles = TokenFiles()
    size: Size = Size()
    times: Times = Times()
    limits: LimitTable = LimitTable()
    workers: Workers = Workers()
    drain: Drain = Drain()
    log: Log = Log()
    observe: Annotated[tuple[str, ...], Meta(description="Further observers by name, such as otel.")] = ()
    lanes: Annotated[
        tuple[LaneTable, ...], Meta(max_length=32, description="Lanes of every model, the most urgent first.")
    ] = ()
    scheduling: Scheduling = Scheduling()
    models: Annotated[dict[str, ModelTable], Meta(description="By the model's name.")] = {}


# What names a file or folder, and is relative to the folder of serve.toml.
_PATHS = (
    *(("tls", key) for key in Tls.__struct_fields__),
    *(("tokens", key) for key in TokenFiles.__struct_fields__),
    ("log", "file"),
)


def read_config(path: Path | None, overrides: Mapping[tuple[str, ...], Any]) -> ServeConfig:
    """Return the file's content, or the defaults, under `overrides` by place, such as `("http", "address")`; None is no
    override. Raises `ConfigError` naming the file, the place, and for an unknown key what may have been meant.
    """
    content = {} if path is None else _read(path)
    for place, value in overrides.items():
        if value is None or value == ():
            continue
        table = content
        for part in place[:-1]:
            table = table.setdefault(part, {})
        table[place[-1]] = value
    try:
        return msgspec.convert(content, ServeConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path or 'The options'}: {error}.", remedy=_remedy(str(error))) from error


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of serve.toml."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(ServeConfig)}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", remedy="Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.", remedy="Mend it there.") from error
    for table, key in _PATHS:
        value = content.get(table)
        if isinstance(value, dict) and isinstance(value.get(key), str) and value[key] not in ("", "-"):
            value[key] = str(path.parent / value[key])
    if isinstance(content.get("bundles"), list):
        content["bundles"] = [str(path.parent / one) if isinstance(one, str) else one for one in content["bundles"]]
    return content


def _remedy(words: str) -> str:
    unknown = re.search(r"unknown field `(.*?)`(?: - at `\$\.(\w+).*?`)?", words)
    if unknown is None:
        return "docs/serve.md describes every key."
    known = list(_fields(unknown[2]))
    near = difflib.get_close_matches(unknown[1], known, 1)
    return f"Did you mean {near[0]!r}?" if near else f"Known keys there: {', '.join(known)}."


def _fields(table: str | None) -> tuple[str, ...]:
    """The keys of a table of the file, or of the file itself."""
    of_many: dict[str | None, Any] = {"lanes": LaneTable, "models": ModelTable}
    kind = of_many.get(table) or (getattr(ServeConfig(), table) if table else ServeConfig)
    return kind.__struct_fields__
