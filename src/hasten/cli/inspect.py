"""`hasten inspect`: what a model is made of, and what stands in its way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hasten.cli.seam import emit, verb
from hasten.errors import UsageError

if TYPE_CHECKING:
    from hasten.model.lint_base import Finding

__all__ = ["command"]

_MOST_OPERATORS = 10


@click.command(name="inspect")
@click.argument("model")
@click.option("--dim", "dims", multiple=True, metavar="NAME=SIZE", help="Size of a free dimension, such as x[3]=320.")
@verb("inspect")
def command(model: str, dims: tuple[str, ...], as_json: bool) -> None:
    """Show signature, parameters, operations, bytes and findings of MODEL (a file of any format or zoo:NAME)."""
    document = _document(model, _sizes(dims))
    if as_json:
        emit("inspect", document)
    else:
        _print(document)


def _document(model: str, dims: dict[str, int]) -> dict[str, Any]:
    import msgspec

    from hasten.engine.host import environment
    from hasten.model.anatomy import anatomy
    from hasten.model.open import open_model
    from hasten.zoo.open import PREFIX, zoo_model

    opened = open_model(zoo_model(model) if model.startswith(PREFIX) else Path(model))
    found = anatomy(opened, dims, environment().features)
    work = found.work
    return {
        "model": model,
        "format": opened.format,
        "sha256": opened.digest,
        "signature": msgspec.to_builtins(opened.signature),
        "opset": opened.opset,
        "bytes": opened.bytes_on_disk,
        "bytes_by_weight_type": found.weights,
        "parameters": found.parameters,
        "operators": found.operators,
        "macs": work.macs if work else None,
        "macs_uncounted_operators": sum(work.uncounted.values()) if work else None,
        "macs_at": work.dims if work else {},
        "flops": work.flops if work else None,
        "flops_elementwise": work.elementwise if work else None,
        "uncounted_operators": work.uncounted if work else None,
        "activation_bytes_estimated": work.activation_bytes if work else None,
        "limits": list(found.limits),
        "findings": [_finding_document(item) for item in found.findings],
    }


def _finding_document(item: Finding) -> dict[str, Any]:
    """Every key, those at their defaults too."""
    return {
        "code": item.code,
        "level": item.level,
        "message": item.message,
        "remedy": item.remedy,
        "transform": item.transform,
        "nodes": list(item.nodes),
        "count": item.count,
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
            _line(side[:-1], f"{spec['name']}: {spec['dtype']}[{shape}]")
    _line("parameters", f"{document['parameters']:,}")
    _line("size", f"{document['bytes'] / 1e6:.2f} MB, {document['format']}, operator set {document['opset']}")
    if document["bytes_by_weight_type"]:
        sizes = document["bytes_by_weight_type"].items()
        _line("weights", ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sizes))
    if document["macs"] is not None:
        _print_work(document)
    listed = list(document["operators"].items())
    more = f" and {len(listed) - _MOST_OPERATORS} more kinds" if len(listed) > _MOST_OPERATORS else ""
    _line("operators", ", ".join(f"{name} {count}" for name, count in listed[:_MOST_OPERATORS]) + more)
    for limit in document["limits"]:
        _line("limit", limit)
    for item in document["findings"]:
        _print_finding(item)


def _print_work(document: dict[str, Any]) -> None:
    at = ", ".join(f"{name}={size}" for name, size in document["macs_at"].items())
    _line(
        "operations",
        f"{document['macs'] / 1e6:,.1f} million multiply-accumulates and "
        f"{document['flops_elementwise'] / 1e6:,.1f} million elementwise, "
        f"{document['flops'] / 1e6:,.1f} MFLOP in all, at {at or 'fixed shapes'}",
    )
    memory = document["activation_bytes_estimated"]
    if memory is not None:
        _line("activations", f"{memory / 1e6:,.2f} MB at most (estimated)")


def _print_finding(item: dict[str, Any]) -> None:
    rest = item["count"] - len(item["nodes"])
    places = ", ".join(item["nodes"]) + (f" and {rest} more" if item["nodes"] and rest else "")
    help_ = f" (transform {item['transform']})" if item["transform"] else ""
    where = f" At: {places}." if places else ""
    _line("finding" if item["level"] == "warning" else "note", f"{item['code']}: {item['message']}{where}")
    _line("", f"{item['remedy']}{help_}")


def _line(title: str, text: str) -> None:
    click.echo(f"{title:<12} {text}")
