"""`hasten inspect`: what a model is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hasten.cli.seam import emit, verb
from hasten.errors import UsageError

__all__ = ["command"]


@click.command(name="inspect")
@click.argument("model")
@click.option("--dim", "dims", multiple=True, metavar="NAME=SIZE", help="Size of a free dimension, such as x[3]=320.")
@verb("inspect")
def command(model: str, dims: tuple[str, ...], as_json: bool) -> None:
    """Show signature, parameters, operations, multiply-accumulates, bytes and findings of MODEL (a file or
    zoo:NAME).
    """
    document = _document(model, _sizes(dims))
    if as_json:
        emit("inspect", document)
    else:
        _print(document)


def _document(model: str, dims: dict[str, int]) -> dict[str, Any]:
    import msgspec

    from hasten.model.anatomy import count_macs, findings
    from hasten.model.onnx_file import open_onnx
    from hasten.zoo.open import PREFIX, zoo_model

    opened = open_onnx(zoo_model(model) if model.startswith(PREFIX) else Path(model))
    macs = count_macs(opened, dims)
    return {
        "model": model,
        "sha256": opened.digest,
        "signature": msgspec.to_builtins(opened.signature),
        "opset": opened.opset,
        "bytes": opened.bytes_on_disk,
        "parameters": opened.parameters(),
        "operators": dict(opened.operators().most_common()),
        "macs": macs.total,
        "macs_uncounted_operators": macs.uncounted,
        "macs_at": macs.dims,
        "findings": [msgspec.to_builtins(item) for item in findings(opened)],
    }


def _sizes(dims: tuple[str, ...]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for item in dims:
        name, _, size = item.rpartition("=")
        if not name or not size.isdigit() or int(size) < 1:
            raise UsageError(f"--dim {item!r} is not NAME=SIZE.", remedy="Write, for example, --dim x[3]=320.")
        sizes[name] = int(size)
    return sizes


def _print(document: dict[str, Any]) -> None:
    for side in ("inputs", "outputs"):
        for spec in document["signature"][side]:
            shape = ", ".join(str(dim) for dim in spec["shape"])
            click.echo(f"{side[:-1]:<12} {spec['name']}: {spec['dtype']}[{shape}]")
    click.echo(f"{'parameters':<12} {document['parameters']:,}")
    click.echo(f"{'size':<12} {document['bytes'] / 1e6:.2f} MB, operator set {document['opset']}")
    at = ", ".join(f"{name}={size}" for name, size in document["macs_at"].items())
    rest = document["macs_uncounted_operators"]
    click.echo(
        f"{'operations':<12} {document['macs'] / 1e6:,.1f} million multiply-accumulates at {at or 'fixed shapes'}"
        + (f"; {rest} operators of unknown shape not counted" if rest else "")
    )
    top = ", ".join(f"{name} {count}" for name, count in list(document["operators"].items())[:10])
    click.echo(f"{'operators':<12} {top}")
    for item in document["findings"]:
        click.echo(f"{'finding':<12} {item['code']}: {item['message']} {item['remedy']}")
