"""`hasten bench`: measure a model, a bundle or a running server under load; compare two, paired."""

from __future__ import annotations

from typing import Any

import click

from hasten.cli.optimize import seconds
from hasten.cli.progress import progress
from hasten.cli.seam import emit, verb
from hasten.errors import UsageError

__all__ = ["command"]

_FIGURES = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "throughput_rps")


@click.command(name="bench")
@click.argument("target")
@click.option("--vs", help="A second target; both are measured in turn and compared.")
@click.option("--load", "load_text", default="closed:1", show_default=True, help="closed:N, poisson:RPS or trace:FILE.")
@click.option("--data", help="Samples to send; bundles bring golden samples, zoo models their own data.")
@click.option("--duration", default="10s", show_default=True, help="How long to put the load on each target.")
@click.option("--rounds", default=40, show_default=True, help="Interleaved rounds of a comparison.")
@click.option("--seed", default=0, show_default=True)
@verb("bench")
def command(
    target: str,
    vs: str | None,
    load_text: str,
    data: str | None,
    duration: str,
    rounds: int,
    seed: int,
    as_json: bool,
) -> None:
    """Measure TARGET (model, bundle folder, or http://HOST:PORT/v2/models/NAME); with --vs, say which is faster."""
    import msgspec

    from hasten.engine.host import environment
    from hasten.measure.load import parse_load
    from hasten.spec.progress import Progress

    load = parse_load(load_text)
    if vs and (load.kind != "closed" or load.value != 1):
        raise UsageError("A comparison is paired with one caller.", remedy="Leave out --load, or write closed:1.")
    if rounds < 6:
        raise UsageError("A comparison needs at least 6 rounds.", remedy="Write --rounds 40.")
    with progress(quiet=as_json) as listener:
        listener(Progress(stage="loading"))
        document = _measure(target, vs, load, data, seconds(duration), rounds, seed, listener)
    document["environment"] = msgspec.to_builtins(environment())
    if as_json:
        emit("bench", document)
    else:
        _print(document)


def _measure(
    target: str,
    vs: str | None,
    load: Any,
    data: str | None,
    duration_s: float,
    rounds: int,
    seed: int,
    listener: Any,
) -> dict[str, Any]:
    from contextlib import ExitStack

    from hasten.cli.documents import figure_document
    from hasten.measure.load import compare_targets, run_load
    from hasten.spec.progress import Progress
    from hasten.stats.ratio import compare
    from hasten.targets import open_target

    document: dict[str, Any] = {}
    with ExitStack() as stack:
        sides = [stack.enter_context(open_target(name, data)) for name in (target, vs) if name]
        if len(sides) == 2:
            ratio = compare_targets(
                sides[0],
                sides[1],
                rounds=rounds,
                runs=5,
                seed=seed,
                tick=lambda done: listener(Progress(stage="comparing", done=done, total=rounds)),
            )
            document |= {"ratio": figure_document(ratio), "verdict": compare(ratio)}
        for key, name, side in zip("ab", (target, vs), sides, strict=False):
            listener(Progress(stage=f"load on {name}"))
            result = run_load(side, load, duration_s, seed=seed)
            figures = {figure: figure_document(getattr(result, figure)) for figure in _FIGURES}
            document[key] = {"target": name, **figures, "failed": result.failed}
    return {**document, "load": {"kind": load.kind, "value": load.value, "path": load.path}}


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("target", "p50 ms", "p95 ms", "p99 ms", "predictions/s", "failed")
    for key in "ab":
        if key in document:
            side = document[key]
            table.add_row(side["target"], *(_cell(side[figure]) for figure in _FIGURES), str(side["failed"]))
    Console().print(table)
    if "ratio" in document:
        ratio = document["ratio"]
        words = document["verdict"].replace("_", " ")
        if ratio["value"] is not None:
            words += f": {ratio['value']:.3f} times as fast ({ratio['low']:.3f} to {ratio['high']:.3f})"
        click.echo(f"{document['a']['target']} against {document['b']['target']}: {words}")


def _cell(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return figure["reason"]
    if figure["low"] is None:
        return f"{figure['value']:.2f}"
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"
