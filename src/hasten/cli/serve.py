"""`hasten serve`: serve bundles over HTTP and gRPC."""

from __future__ import annotations

import click

from hasten.cli.seam import emit, say, verb
from hasten.errors import UsageError

__all__ = ["command", "host_and_port"]


@click.command(name="serve")
@click.argument("bundles", nargs=-1, required=True, type=click.Path())
@click.option("--http", "address", default="127.0.0.1:8000", show_default=True, metavar="HOST:PORT")
@click.option("--grpc", "grpc_address", metavar="HOST:PORT", help="Speak gRPC too, at this address.")
@click.option("--insecure", is_flag=True, help="Allow an address that other machines reach, without authentication.")
@verb("serve")
def command(bundles: tuple[str, ...], address: str, grpc_address: str | None, insecure: bool, as_json: bool) -> None:
    """Serve BUNDLES over the Open Inference Protocol v2 until Ctrl-C or SIGTERM."""
    from hasten.bundle.read import open_bundle
    from hasten.serve.server import Front, Running, serve_forever

    host, port = host_and_port(address)
    opened = [open_bundle(path) for path in bundles]
    names = [bundle.manifest.name for bundle in opened]

    def ready(running: Running) -> None:
        if as_json:
            emit("serve", {"url": running.url, "models": names, "grpc": running.grpc or None})
        else:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            also = f", gRPC at {running.grpc}" if running.grpc else ""
            say(f"ready: {running.url}/v2/models/{names[0]}{more}{also}")

    front = Front(grpc=None if grpc_address is None else host_and_port(grpc_address))
    serve_forever(opened, host=host, port=port, insecure=insecure, front=front, on_ready=ready)


def host_and_port(address: str) -> tuple[str, int]:
    """Read HOST:PORT. Raises `UsageError`."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{address!r} is not HOST:PORT.", remedy="Write, for example, 127.0.0.1:8000.")
    return host.strip("[]"), int(port)
