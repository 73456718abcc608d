"""`hasten report`: the evidence of a bundle as one HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from hasten.cli.seam import emit, verb

__all__ = ["command"]


@click.command(name="report")
@click.argument("bundle", type=click.Path())
@click.option("--out", type=click.Path(), help="The page to write; BUNDLE.html beside the bundle by default.")
@verb("report")
def command(bundle: str, out: str | None, as_json: bool) -> None:
    """Write the evidence in BUNDLE as one self-contained HTML page and print its path."""
    from hasten.facade import open_bundle
    from hasten.report import write_report

    handle = open_bundle(bundle)
    path = Path(out) if out else Path(bundle.rstrip("/") + ".html")
    write_report(handle.record(), path, title=handle.manifest.name)
    if as_json:
        emit("report", {"report": str(path)})
    else:
        click.echo(path)
