"""The command line: one file for each verb, a few lines over the facade. Verbs are imported only when they are used."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from hasten.cli.seam import fail
from hasten.errors import UsageError

__all__ = ["VERBS", "cli", "main"]

# Verb -> one line of help, so that `hasten --help` imports nothing.
VERBS = {
    "demo": "The main job end to end on a real model of the zoo.",
    "devices": "Hardware classes and the engines that reach them.",
    "zoo": "Real sample models and labelled data.",
    "inspect": "Signature, parameters, operations, FLOPs, findings of a model.",
    "profile": "Time of each operator, roofline, bottlenecks and what addresses them.",
    "optimize": "Find the fastest deployment that meets the objectives, and prove it.",
    "report": "The evidence of a bundle as one HTML page.",
    "verify": "May this bundle serve here?",
    "bench": "Measure a model, a bundle or a running server; compare two.",
    "serve": "Serve bundles over the Open Inference Protocol v2.",
    "top": "How a running server does, live: requests/s, latency, batches, queue.",
    "completion": "Print shell completion for bash, zsh or fish.",
}


class _LazyGroup(click.Group):
    """Finds a verb's module by its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        return importlib.import_module(f"hasten.cli.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hasten")
def cli() -> None:
    """Make a trained model fast and cheap to run, and prove it."""


def main(args: list[str] | None = None) -> Any:
    """Run the command line. Usage errors obey `--json` too."""
    arguments = sys.argv[1:] if args is None else args
    try:
        return cli.main(arguments, standalone_mode=False)
    except click.UsageError as error:
        wrong = UsageError(error.format_message(), remedy=_hint(error))
        fail("usage", wrong, "--json" in arguments)
    except click.ClickException as error:
        fail("usage", UsageError(error.format_message()), "--json" in arguments)
    except click.Abort:
        sys.exit(130)


def _hint(error: click.UsageError) -> str:
    return f"See: {error.ctx.command_path} --help" if error.ctx else "See: hasten --help"
