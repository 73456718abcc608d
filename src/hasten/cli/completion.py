"""`hasten completion`: print the script that makes a shell complete verbs and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["command"]


@click.command(name="completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print shell completion for SHELL. For bash: eval "$(hasten completion bash)"."""
    from hasten.cli import cli

    found = get_completion_class(shell)
    assert found is not None, "click knows the three shells"
    click.echo(found(cli, {}, "hasten", "_HASTEN_COMPLETE").source())
