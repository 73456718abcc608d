"""`hasten serve`: serve bundles over HTTP and gRPC."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hasten.cli.seam import emit, say, verb
from hasten.errors import UsageError

if TYPE_CHECKING:
    from hasten.serve.plan import Plan

__all__ = ["command", "host_and_port"]

_FILE = click.Path(dir_okay=False)


@click.command(name="serve")
@click.argument("bundles", nargs=-1, type=click.Path())
@click.option("--config", type=_FILE, envvar="HASTEN_CONFIG", help="A serve.toml; flags and variables stand over it.")
@click.option("--http", envvar="HASTEN_HTTP", metavar="HOST:PORT", help="Where to listen.  [default: 127.0.0.1:8000]")
@click.option("--grpc", envvar="HASTEN_GRPC", metavar="HOST:PORT", help="Where to speak gRPC too.")
@click.option(
    "--insecure", is_flag=True, default=None, envvar="HASTEN_INSECURE",
    help="Allow an address that other machines reach, without authentication.",
)  # fmt: skip
@click.option("--infer-tokens", type=_FILE, help="File of tokens for inference, one a line; or HASTEN_INFER_TOKEN.")
@click.option("--admin-tokens", type=_FILE, help="File of tokens for administration; or HASTEN_ADMIN_TOKEN.")
@click.option("--metrics-tokens", type=_FILE, help="File of tokens for statistics; or HASTEN_METRICS_TOKEN.")
@click.option("--tls-cert", type=_FILE, envvar="HASTEN_TLS_CERT", help="The server's certificate, PEM.")
@click.option("--tls-key", type=_FILE, envvar="HASTEN_TLS_KEY", help="Its key, PEM, without a password.")
@click.option("--client-ca", type=_FILE, envvar="HASTEN_CLIENT_CA", help="Clients need a certificate of this CA.")
@click.option("--allow-host", multiple=True, envvar="HASTEN_ALLOW_HOST", help="A name that clients know it by.")
@click.option("--allow-origin", multiple=True, envvar="HASTEN_ALLOW_ORIGIN", help="A web page that may use it.")
@click.option(
    "--repository-control", is_flag=True, default=None, envvar="HASTEN_REPOSITORY_CONTROL",
    help="Let holders of an admin token load and unload models.",
)  # fmt: skip
@click.option("--queue-capacity", type=int, envvar="HASTEN_QUEUE_CAPACITY", help="Requests that wait for a model.")
@click.option("--rate", type=float, envvar="HASTEN_RATE", metavar="REQUESTS/S", help="For each token.")
@click.option(
    "--isolation", type=click.Choice(["process", "none"]), envvar="HASTEN_ISOLATION",
    help="A process for each engine instance, or none: in the server.  [default: process]",
)  # fmt: skip
@click.option("--worker-memory", type=int, envvar="HASTEN_WORKER_MEMORY", metavar="MIB", help="What one may allocate.")
@click.option("--load-timeout", type=float, envvar="HASTEN_LOAD_TIMEOUT", metavar="SECONDS", help="To load a model.")
@click.option("--run-timeout", type=float, envvar="HASTEN_RUN_TIMEOUT", metavar="SECONDS", help="To run one batch.")
@click.option(
    "--drain-delay", type=float, envvar="HASTEN_DRAIN_DELAY", metavar="SECONDS",
    help="How long to serve on, not ready, when it is time to stop.  [default: 1]",
)  # fmt: skip
@click.option("--log", envvar="HASTEN_LOG", metavar="FILE|-", help="Where to log JSON lines; - is standard error.")
@click.option("--log-requests", is_flag=True, default=None, envvar="HASTEN_LOG_REQUESTS", help="Log each request, too.")
@click.option("--observe", multiple=True, envvar="HASTEN_OBSERVE", help="A further observer, such as otel.")
@click.option("--check", is_flag=True, help="Check the configuration and the bundles, and serve nothing.")
@verb("serve")
def command(bundles: tuple[str, ...], config: str | None, check: bool, as_json: bool, **flags: Any) -> None:
    """Serve BUNDLES over the Open Inference Protocol v2 until Ctrl-C or SIGTERM.

    Flags stand over the variables HASTEN_HTTP, HASTEN_TLS_CERT and so on, and these over the file.
    """
    from hasten.bundle.read import open_bundle
    from hasten.observe.session import observing
    from hasten.serve.config import read_config
    from hasten.serve.options import options_of
    from hasten.serve.plan import check_models, plan_of, warnings_of
    from hasten.serve.server import Running, require_guard, serve_forever
    from hasten.serve.telemetry import Telemetry
    from hasten.spec.compiled import is_compiled

    settings = read_config(Path(config) if config else None, {("bundles",): bundles, **_places(flags)})
    if not settings.bundles:
        raise UsageError("There is nothing to serve.", remedy="Name a bundle: hasten serve fast.bundle")
    host, port = host_and_port(settings.http.address)
    options = options_of(settings, os.environ)
    guarded = settings.http.insecure or options.front.keeps_strangers_out
    require_guard(host, guarded)
    if settings.grpc.address:
        options = replace(options, front=replace(options.front, grpc=host_and_port(settings.grpc.address)))
        require_guard(settings.grpc.address.rpartition(":")[0].strip("[]"), guarded)
    opened = [open_bundle(path) for path in settings.bundles]
    names = [bundle.manifest.name for bundle in opened]
    if check:
        for bundle in opened:
            bundle.require_servable()
        check_models(options.rules, names)
        plans = {bundle.manifest.name: plan_of(bundle, options.rules) for bundle in opened}
        _say_good(plans, warnings_of(plans.values()), as_json)
        return

    def ready(running: Running) -> None:
        fields = {
            "event": "ready",
            "url": running.url,
            "grpc": running.grpc,
            "models": names,
            "compiled": is_compiled(),
        }
        logging.getLogger("hasten.serve").info("ready: %s", running.url, extra={"fields": fields})
        if as_json:
            emit("serve", {"url": running.url, "models": names, "grpc": running.grpc or None})
        elif settings.log.file != "-":
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            also = f"; gRPC at {running.grpc}" if running.grpc else ""
            say(f"ready: {running.url}/v2/models/{names[0]}{more}{also}")

    with observing(settings.log.file, log_requests=settings.log.requests, names=settings.observe) as observation:
        telemetry = Telemetry(sink=observation.sink, page=observation.metrics.page)
        serve_forever(
            opened,
            replace(options, telemetry=telemetry),
            host=host,
            port=port,
            insecure=settings.http.insecure,
            on_ready=ready,
        )


def host_and_port(address: str) -> tuple[str, int]:
    """Read HOST:PORT. Raises `UsageError`."""
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise UsageError(f"{address!r} is not HOST:PORT.", remedy="Write, for example, 127.0.0.1:8000.")
    return host.strip("[]"), int(port)


def _places(flags: dict[str, Any]) -> dict[tuple[str, ...], Any]:
    """Where in serve.toml each flag belongs."""
    return {
        ("http", "address"): flags["http"],
        ("grpc", "address"): flags["grpc"],
        ("http", "insecure"): flags["insecure"],
        ("http", "allow_hosts"): flags["allow_host"],
        ("http", "allow_origins"): flags["allow_origin"],
        **{("tokens", scope): _token_file(flags[f"{scope}_tokens"], scope) for scope in ("infer", "admin", "metrics")},
        ("tls", "certificate"): flags["tls_cert"],
        ("tls", "key"): flags["tls_key"],
        ("tls", "client_ca"): flags["client_ca"],
        ("repository_control",): flags["repository_control"],
        ("queue_capacity",): flags["queue_capacity"],
        ("limits", "requests_per_s"): flags["rate"],
        ("workers", "isolation"): flags["isolation"],
        ("workers", "memory_mb"): flags["worker_memory"],
        ("workers", "load_s"): flags["load_timeout"],
        ("workers", "run_s"): flags["run_timeout"],
        ("drain", "delay_s"): flags["drain_delay"],
        ("log", "file"): flags["log"],
        ("log", "requests"): flags["log_requests"],
        ("observe",): flags["observe"],
    }


def _token_file(flag: str | None, scope: str) -> str | None:
    """The flag; else nothing at all where a variable holds the token, which stands over the file of serve.toml."""
    from hasten.serve.access import Scope
    from hasten.serve.options import token_variable

    return flag or ("" if os.environ.get(token_variable(Scope(scope))) else None)


def _say_good(plans: Mapping[str, Plan], warnings: list[str], as_json: bool) -> None:
    if as_json:
        told = {name: _told(plan) for name, plan in plans.items()}
        emit("serve", {"good": True, "models": list(plans), "plans": told, "warnings": warnings})
        return
    say(f"good: would serve {', '.join(plans)}")
    for name, plan in plans.items():
        told = _told(plan)
        if len(plan.policy.lanes) > 1:
            say(f"{name}: lanes {', '.join(told['lanes'])}; requests that name none go in {told['default_lane']}")
        if len(plan.variants) > 1:
            say(f"{name}: ladder {', then '.join(plan.variants)}, all loaded in each instance")
        if told["min_instances"] != told["max_instances"]:
            say(f"{name}: {told['min_instances']} to {told['max_instances']} instances")
    for words in warnings:
        say(f"warning: {words}")


def _told(plan: Plan) -> dict[str, Any]:
    least, most = plan.policy.scale
    return {
        "lanes": [lane.name for lane in plan.policy.lanes],
        "default_lane": plan.default_lane,
        "variants": list(plan.variants),
        "min_instances": least,
        "max_instances": most,
        "queue_capacity": plan.policy.queue_capacity,
    }
