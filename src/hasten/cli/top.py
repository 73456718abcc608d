"""`hasten top`: how a running server does, live in the terminal, from its own metrics."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hasten.cli.optimize import seconds
from hasten.cli.seam import emit, verb
from hasten.errors import RequestError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hasten.observe.rates import Rates
    from hasten.observe.scrape import Scraper

__all__ = ["command"]

_VARIABLE = "HASTEN_METRICS_TOKEN"
_COLUMNS = ("model", "req/s", "p50 ms", "p95 ms", "p99 ms", "batch", "queue", "work s", "busy", "refused/s", "workers")


@click.command(name="top")
@click.argument("url", default="http://127.0.0.1:8000")
@click.option("--interval", default="2s", show_default=True, help="Time between two looks.")
@click.option("--once", is_flag=True, help="Look over one interval, print, and leave; so does --json.")
@click.option(
    "--token-file", type=click.Path(dir_okay=False), help=f"File with a token of scope metrics; or {_VARIABLE}."
)
@click.option("--ca", type=click.Path(dir_okay=False, exists=True), help="PEM file: who signed the certificate.")
@verb("top")
def command(url: str, interval: str, once: bool, token_file: str | None, ca: str | None, as_json: bool) -> None:
    """Show requests/s, latency, batches, queue, refusals and restarts of each model of the server at URL."""
    scraper, pause_s = _scraper(url, _token(token_file), ca), seconds(interval)
    if as_json or once:
        rows, over_s = _look(scraper, pause_s)
        if as_json:
            emit("top", _document(url, rows, over_s))
        else:
            _console().print(_table(url, rows, over_s))
        return
    _live(url, scraper, pause_s)


def _scraper(url: str, token: str, ca: str | None) -> Scraper:
    try:
        from hasten.observe.scrape import Scraper
    except ModuleNotFoundError as error:
        from hasten.errors import MissingError

        raise MissingError(
            f"Reading metrics needs the package {error.name!r}, which is not installed.",
            remedy="Install it with: pip install 'hasten[serve]'",
        ) from error
    return Scraper(url, token=token, ca=ca)


def _token(file: str | None) -> str:
    """The first token of the file, where one is named, else of the variable."""
    if file is None:
        return os.environ.get(_VARIABLE, "")
    try:
        words = Path(file).read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The token file {file} cannot be read.", remedy="Check the path.") from error
    if not words:
        raise UsageError(f"The token file {file} is empty.", remedy="Write a token into it.")
    return words[0]


def _look(scraper: Scraper, pause_s: float) -> tuple[list[Rates], float]:
    """What happened over the next `pause_s` seconds, and how long that was really."""
    from hasten.observe.rates import rates

    before, begun = scraper.scrape(), time.monotonic()
    time.sleep(pause_s)
    after = scraper.scrape()
    over_s = time.monotonic() - begun
    return rates(before, after, over_s), over_s


def _document(url: str, rows: list[Rates], over_s: float) -> dict[str, Any]:
    import msgspec

    models = [{name: getattr(row, name) for name in row.__struct_fields__} for row in rows]
    return {"url": url, "interval_s": round(over_s, 3), "models": msgspec.to_builtins(models)}


def _live(url: str, scraper: Scraper, pause_s: float) -> None:
    """Draw until Ctrl-C. A server that gives no answer is asked again."""
    from rich.live import Live
    from rich.text import Text

    from hasten.observe.rates import rates

    before, begun = scraper.scrape(), time.monotonic()
    with Live(Text(f"{_plain(url)}: looking for {pause_s:g} s"), console=_console(), auto_refresh=False) as live:
        while True:
            time.sleep(pause_s)
            try:
                after, now = scraper.scrape(), time.monotonic()
            except RequestError as error:
                if error.code != "connection":
                    raise
                live.update(Text(_plain(str(error)), style="red"), refresh=True)
                continue
            live.update(_table(url, rates(before, after, now - begun), now - begun), refresh=True)
            before, begun = after, now


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)


def _table(url: str, rows: list[Rates], over_s: float) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{_plain(url)}, the last {over_s:.1f} s"), title_justify="left")
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "model" else "right")
    for row in rows:
        table.add_row(*(Text(cell, style=_style(row)) for cell in _cells(row)))
    return table


def _cells(row: Rates) -> list[str]:
    workers = f"{row.workers_up}/{row.workers}" if row.workers else "-"
    if row.restarts:
        workers += f" ({row.restarts} restarts)"
    refusals = ", ".join(f"{reason} {value:.1f}" for reason, value in sorted(row.refusals.items()))
    return [
        _plain(row.model),
        f"{row.rps:.1f}",
        *(_figure(ms) for ms in (row.latency_p50_ms, row.latency_p95_ms, row.latency_p99_ms)),
        "-" if row.batch is None else f"{row.batch:.1f}",
        str(row.queue),
        f"{row.queue_work_s:.2f}",
        f"{row.busy / max(row.workers, 1):.0%}",
        _plain(refusals) or "-",
        workers,
    ]


def _style(row: Rates) -> str:
    if row.ready is None:
        return "dim"
    return "" if row.ready and row.workers_up == row.workers else "red"


def _figure(ms: float | None) -> str:
    """Two digits: more than that a histogram does not know."""
    return "-" if ms is None else f"{ms:.2g}" if ms < 100 else f"{ms:.0f}"


def _plain(text: str) -> str:
    """Names come from the server; nothing in them is to move the cursor."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
