"""`hasten verify`: may this bundle serve here?"""

from __future__ import annotations

import click

from hasten.cli.progress import progress
from hasten.cli.seam import emit, verb
from hasten.errors import BundleError

__all__ = ["command"]


@click.command(name="verify")
@click.argument("bundle", type=click.Path())
@verb("verify")
def command(bundle: str, as_json: bool) -> int:
    """Check hashes, evidence, instruction set and golden samples of BUNDLE on this machine."""
    problems = _problems(bundle, as_json)
    if as_json:
        emit("verify", {"ok": not problems, "problems": problems})
    elif problems:
        for problem in problems:
            click.echo(f"problem: {problem}")
    else:
        click.echo("ok: hashes, evidence and golden samples agree; this bundle may serve here")
    return 1 if problems else 0


def _problems(bundle: str, quiet: bool) -> list[str]:
    """An altered bundle is an answer, not bad input; a folder that is no bundle at all is bad input."""
    from pathlib import Path

    from hasten.bundle.check import problems
    from hasten.bundle.manifest import MANIFEST
    from hasten.bundle.read import open_bundle

    try:
        opened = open_bundle(bundle)
    except BundleError as error:
        if not (Path(bundle) / MANIFEST).is_file():
            raise
        return [error.message]
    with progress(quiet=quiet) as listener:
        return problems(opened, listener)
