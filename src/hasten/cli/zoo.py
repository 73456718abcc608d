"""`hasten zoo`: list and fetch the sample models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hasten.cli.progress import progress
from hasten.cli.seam import emit, verb

if TYPE_CHECKING:
    from hasten.zoo.items import Base, Specimen

__all__ = ["command"]


@click.group(name="zoo")
def command() -> None:
    """Real sample models and labelled data, hash-checked and cached."""


@command.command(name="list")
@verb("zoo-list")
def list_(as_json: bool) -> None:
    """List the sample models, their data, and what the models reach on it."""
    from hasten.zoo.catalog import CATALOG

    if as_json:
        emit("zoo-list", {"models": [_document(entry) for entry in CATALOG.values()]})
        return
    from rich.console import Console
    from rich.table import Column, Table

    name = Column("zoo:NAME", no_wrap=True)
    table = Table(name, "task", "MB", "licence", "data", "base, 95 % interval", "cached")
    for entry in CATALOG.values():
        for number, row in enumerate(_rows(entry)):
            table.add_row(*row, end_section=number == len(entry.views) - 1)
    Console().print(table)


@command.command(name="get")
@click.argument("names", nargs=-1, required=True)
@verb("zoo-get")
def get(names: tuple[str, ...], as_json: bool) -> None:
    """Fetch sample models and their data by NAME and print where they are, the model first."""
    from hasten.zoo.fetch import items_of, obtain

    found: dict[str, dict[str, str]] = {}
    with progress(quiet=as_json) as listener:
        for name in names:
            plain = name.removeprefix("zoo:")
            found[plain] = {item: str(obtain(item, listener)) for item in items_of(plain)}
    if as_json:
        paths = {name: next(iter(files.values())) for name, files in found.items()}
        emit("zoo-get", {"paths": paths, "files": found})
        return
    for path in dict.fromkeys(path for files in found.values() for path in files.values()):
        click.echo(path)


def _document(entry: Specimen) -> dict[str, Any]:
    import msgspec

    from hasten.zoo.catalog import BUILDS, PARTS
    from hasten.zoo.fetch import complete, items_of

    items = items_of(entry.name)
    ingredients = dict.fromkeys(one for item in items for one in (BUILDS[item].needs if item in BUILDS else (item,)))
    return {
        **msgspec.to_builtins(entry),
        "size": _size(entry),
        "cached": complete(entry.name),
        "files": [msgspec.to_builtins(PARTS[item]) for item in ingredients if item in PARTS],
    }


def _rows(entry: Specimen) -> list[list[str]]:
    """One row for each set of data; the model stands in the first."""
    from hasten.zoo.fetch import complete

    rows: list[list[str]] = []
    for name, view in entry.views.items():
        data = [view.samples, _said(view.base)]
        if rows:
            rows.append([f"{entry.name}/{name}", "", "", "", *data, ""])
        else:
            size = _size(entry)
            megabytes = f"{size / 1e6:.1f}" if size else "-"
            cached = "yes" if complete(entry.name) else "no"
            rows.append([entry.name, entry.task, megabytes, entry.licence, *data, cached])
    return rows


def _size(entry: Specimen) -> int | None:
    """Bytes of the model file; None for data only and for a model that is yet to be built."""
    from hasten.zoo.catalog import PARTS
    from hasten.zoo.fetch import kept

    if entry.model in PARTS:
        return PARTS[entry.model].size
    path = kept(entry.model) if entry.model else None
    return path.stat().st_size if path else None


def _said(base: Base | None) -> str:
    if base is None:
        return "-"
    return f"{base.metric} {base.value:.3f} ({base.low:.3f} to {base.high:.3f})"
