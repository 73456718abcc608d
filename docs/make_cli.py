"""Write docs/cli.md from the command line's own help, so that the two never differ (a test compares them)."""

from __future__ import annotations

from pathlib import Path

import click

from hasten.cli import VERBS, cli

PAGE = Path(__file__).parent / "cli.md"


def page() -> str:
    """Return the page."""
    context = click.Context(cli, info_name="hasten", terminal_width=100, max_content_width=100)
    parts = ["# The command line\n\nMade by `make docs` from `hasten VERB --help`.\n"]
    for verb in VERBS:
        command = cli.get_command(context, verb)
        assert command is not None
        parts += _section(command, click.Context(command, info_name=verb, parent=context, max_content_width=100))
    return "\n".join(parts)


def _section(command: click.Command, context: click.Context) -> list[str]:
    text = [f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            text += _section(child, click.Context(child, info_name=name, parent=context, max_content_width=100))
    return text


if __name__ == "__main__":
    PAGE.write_text(page())
