"""`hasten profile`: where the time of a prediction goes, operator by operator, and what could be done about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from hasten.cli.progress import progress
from hasten.cli.seam import emit, verb
from hasten.spec.target import Precision

if TYPE_CHECKING:
    from hasten.spec.measurement import Figure
    from hasten.spec.profile import Bottleneck, Operator, Profile

__all__ = ["command"]

_MOST_ROWS = 15
_WIDTH = 120


@click.command(name="profile")
@click.argument("model")
@click.option("--data", help="Samples to run: a folder, an .npz, zoo:NAME or module:function.")
@click.option("--engine", help="Engine to profile on; the usual one of the format by default.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the engine; one a physical core by default.")
@click.option("--precision", type=click.Choice(get_args(Precision)), help="Arithmetic; f32 by default.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE.html", help="Write the page.")
@click.option("--trace", type=click.Path(path_type=Path), metavar="FILE.json", help="Write a trace for Perfetto.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Draws the order of samples.")
@verb("profile")
def command(
    model: str,
    data: str | None,
    engine: str | None,
    threads: int | None,
    precision: Precision | None,
    out: Path | None,
    trace: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Show the time of each operator of MODEL, its roofline, and the largest bottlenecks with what addresses them.

    MODEL is a file, zoo:NAME, or the folder of a bundle, which stands for its picked variant.
    """
    from hasten.facade import profile
    from hasten.report.files import check_writable, write_whole

    for path, option in ((out, "--out"), (trace, "--trace")):
        if path is not None:
            check_writable(path, option)
    with progress(quiet=as_json) as listener:
        found = profile(
            model, data=data, engine=engine, threads=threads, precision=precision, seed=seed, listener=listener
        )
    if out is not None:
        from hasten.report import render_profile

        write_whole(out, render_profile(found).encode())
    if trace is not None:
        write_whole(trace, _trace(found), "--trace")
    written = {"page": str(out) if out else None, "trace": str(trace) if trace else None}
    if as_json:
        from hasten.cli.documents import profile_document

        emit("profile", {**profile_document(found), **written})
    else:
        _print(found)
        for name, path in written.items():
            if path:
                click.echo(f"{name}: {path}")


def _trace(found: Profile) -> bytes:
    import msgspec

    from hasten.profile.trace import trace_document

    return msgspec.json.encode(trace_document(found))


def _print(found: Profile) -> None:
    shapes = ", ".join(f"{name}{list(shape)}" for name, shape in found.shapes.items())
    _line("model", f"{found.model}, {found.target}, at {shapes}")
    _line("prediction", f"{_figure(found.latency_ms, 'ms')}; {_figure(found.profiled_ms, 'ms')} with the profiler")
    _line("operators", f"{len(found.operators)}, {_figure(found.operators_ms, 'ms')} in all")
    compute, memory = found.ceilings.compute_gflop_per_s, found.ceilings.memory
    _line("ceilings", f"arithmetic {_figure(compute, 'GFLOP/s')}")
    for item in memory:
        _line("", f"copying within {item.working_set_bytes / 2**20:g} MiB {_figure(item.gb_per_s, 'GB/s')}")
    _print_operators(found.operators)
    for item in found.bottlenecks:
        _print_bottleneck(item)
    for note in found.notes:
        _line("note", note)


def _print_operators(operators: tuple[Operator, ...]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    ordered = sorted(operators, key=lambda item: -item.share)
    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("operator", no_wrap=True, max_width=44)
    table.add_column("kind", no_wrap=True, max_width=16)
    for heading in ("µs (median)", "share", "MFLOP", "kB", "of roofline"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("bound", no_wrap=True)
    for item in ordered[:_MOST_ROWS]:
        share = item.roofline_share.value
        table.add_row(
            _plain(item.label),
            _plain(item.kind),
            "?" if item.time_us.value is None else f"{item.time_us.value:,.1f}",
            f"{item.share:.1%}",
            "?" if item.flops is None else f"{item.flops / 1e6:,.2f}",
            "?" if item.bytes_moved is None else f"{item.bytes_moved / 1e3:,.0f}",
            "?" if share is None else f"{share:.0%}",
            item.bound or "?",
        )
    # Pipes and files have no width of their own; a table that wraps cannot be read there.
    console = Console()
    console = console if console.is_terminal else Console(width=_WIDTH)
    console.print(table)
    rest = ordered[_MOST_ROWS:]
    if rest:
        _line("the rest", f"{len(rest)} operators, {sum(item.share for item in rest):.1%} of the time")


def _print_bottleneck(item: Bottleneck) -> None:
    bound = f"bound by {item.bound}" if item.bound else "bound unknown"
    _line("bottleneck", f"{item.count} × {item.kind}, {bound}: {item.share:.1%}, {_figure(item.time_us, 'µs')}")
    _line("", f"largest: {', '.join(item.largest)}")
    for remedy in item.remedies:
        after = f", after {remedy.after}" if remedy.after else ""
        _line("", f"{remedy.transform}{after} ({remedy.operators} of {item.count}): {remedy.why}")
    if item.why_none:
        _line("", item.why_none)


def _figure(figure: Figure, unit: str) -> str:
    if figure.value is None:
        return f"not measured ({figure.reason})"
    return f"{_interval(figure)} {unit}"


def _interval(figure: Figure) -> str:
    if figure.value is None:
        return "?"
    digits = 1 if figure.value >= 20 else 2
    if figure.low is None or figure.high is None:
        return f"{figure.value:,.{digits}f}"
    return f"{figure.value:,.{digits}f} ({figure.low:,.{digits}f} to {figure.high:,.{digits}f})"


def _plain(text: str) -> Any:
    """A name from a model, which the table must not read as markup."""
    from rich.text import Text

    return Text(text)


def _line(title: str, text: str) -> None:
    click.echo(f"{title:<12} {text}")
