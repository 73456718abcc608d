"""`hasten zoo`: list and fetch the sample models."""

from __future__ import annotations

from typing import Any

import click

from hasten.cli.progress import progress
from hasten.cli.seam import emit, verb

__all__ = ["command"]


@click.group(name="zoo")
def command() -> None:
    """Real sample models and labelled data, hash-checked and cached."""


@command.command(name="list")
@verb("zoo-list")
def list_(as_json: bool) -> None:
    """List the sample models."""
    import msgspec

    from hasten.zoo.catalog import CATALOG
    from hasten.zoo.fetch import cached

    items: list[dict[str, Any]] = [
        {**msgspec.to_builtins(item), "cached": cached(name) is not None} for name, item in CATALOG.items()
    ]
    if as_json:
        emit("zoo-list", {"models": items})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "task", "MB", "licence", "data", "cached")
    for item in items:
        size = f"{item['size'] / 1e6:.1f}"
        table.add_row(
            item["name"],
            item["task"],
            size,
            item["licence"],
            item["data_note"],
            "yes" if item["cached"] else "no",
        )
    Console().print(table)


@command.command(name="get")
@click.argument("names", nargs=-1, required=True)
@verb("zoo-get")
def get(names: tuple[str, ...], as_json: bool) -> None:
    """Fetch sample models by NAME and print where they are."""
    from hasten.zoo.open import zoo_model

    with progress(quiet=as_json) as listener:
        paths = {name: str(zoo_model(name, listener)) for name in names}
    if as_json:
        emit("zoo-get", {"paths": paths})
    else:
        for path in paths.values():
            click.echo(path)
