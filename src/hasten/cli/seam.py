"""The seam between verbs and the terminal: options that every verb has, exit statuses, JSON, errors without
traceback.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import click

from hasten.errors import HastenError

__all__ = ["SCHEMA_PREFIX", "emit", "fail", "say", "verb"]

SCHEMA_PREFIX = "hasten"
INTERRUPTED = 130


def verb(name: str) -> Callable[[Callable[..., int | None]], Callable[..., Any]]:
    """Give a verb `--json` and `--debug`, and turn its errors into messages and exit statuses.

    The function returns its exit status (None for 0).
    """

    def decorate(function: Callable[..., int | None]) -> Callable[..., Any]:
        @click.option("--json", "as_json", is_flag=True, help="Print one JSON document to standard output.")
        @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
        @functools.wraps(function)
        def wrapped(*args: Any, as_json: bool, debug: bool, **kwargs: Any) -> None:
            try:
                status = function(*args, as_json=as_json, **kwargs)
            except HastenError as error:
                if debug:
                    raise
                fail(name, error, as_json)
            except KeyboardInterrupt:
                say("Interrupted. What was finished is kept; optimize continues with --resume.")
                sys.exit(INTERRUPTED)
            except BrokenPipeError:
                # Whoever read our output has left (as `| head` does): nothing is wrong, and nothing more can be said.
                os._exit(0)
            except (click.ClickException, click.Abort):
                raise
            except Exception as error:
                if debug:
                    raise
                bug = HastenError(
                    f"A bug in hasten: {type(error).__name__}: {error}",
                    remedy="Run it again with --debug and report what it prints.",
                    code="bug",
                )
                fail(name, bug, as_json)
            sys.exit(status or 0)

        return wrapped

    return decorate


def emit(name: str, document: dict[str, Any]) -> None:
    """Print one JSON document with its schema first."""
    import msgspec

    raw = msgspec.json.encode({"schema": f"{SCHEMA_PREFIX}.{name}/1", **document})
    click.echo(msgspec.json.format(raw, indent=2).decode())


def say(text: str) -> None:
    """Print to standard error, where progress and messages go."""
    click.echo(text, err=True)


def fail(name: str, error: HastenError, as_json: bool) -> NoReturn:
    """Report an error as the contract says, and leave with its status."""
    if as_json:
        document = {"code": error.code, "message": error.message, "remedy": error.remedy}
        emit(name, {"error": document})
    else:
        click.secho("error: ", fg="red", bold=True, nl=False, err=True)
        say(str(error))
    sys.exit(error.status)
