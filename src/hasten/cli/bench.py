"""`hasten bench`: measure a model, a bundle or a running server under load; compare two, paired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from hasten.cli.optimize import seconds
from hasten.cli.progress import progress
from hasten.cli.seam import emit, verb
from hasten.errors import UsageError
from hasten.measure.load import HOW, Load, length_s, parse_load
from hasten.spec.progress import Listener, Progress
from hasten.spec.slo import Prices

__all__ = ["command"]

_COLUMNS = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "throughput_rps")
_FIGURES = (*_COLUMNS, "attainment", "goodput_rps")
_COUNTS = ("requests", "failed", "failures", "unanswered", "unsent", "late", "offered_rps")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """What was typed, in seconds and milliseconds. `duration_s` None stands for the load's own length."""

    names: tuple[str, ...]
    load: Load
    data: str | None
    prices: Prices
    duration_s: float | None
    warmup_s: float
    deadline_ms: float | None
    patience_s: float
    rounds: int
    seed: int


@click.command(name="bench")
@click.argument("target")
@click.option("--vs", help="A second target; both are measured in turn and compared.")
@click.option("--load", "load_text", default="closed:1", show_default=True, help=f"{HOW}.")
@click.option("--data", help="Samples to send; bundles bring golden samples, zoo models their own data.")
@click.option("--duration", help="How long to put the load on each target; 10s, or as long as steps and traces last.")
@click.option("--warmup", default="1s", show_default=True, help="Load before it that is not measured.")
@click.option("--deadline-ms", type=float, help="Tell the share of requests that are answered in time, and goodput.")
@click.option("--prices", type=click.Path(), help="TOML file with a [prices] table, for cost per million predictions.")
@click.option("--rounds", default=40, show_default=True, help="Interleaved rounds of a comparison.")
@click.option("--patience", default="20s", show_default=True, help="Time to wait for a quiet machine, in all.")
@click.option("--seed", default=0, show_default=True, help="Draws the arrivals and the order of sides.")
@verb("bench")
def command(
    target: str,
    vs: str | None,
    load_text: str,
    data: str | None,
    duration: str | None,
    warmup: str,
    deadline_ms: float | None,
    prices: str | None,
    rounds: int,
    patience: str,
    seed: int,
    as_json: bool,
) -> None:
    """Measure TARGET (model, bundle folder, or http://HOST:PORT/v2/models/NAME); with --vs, say which is faster."""
    from hasten.facade import load_prices

    asked = _Asked(
        names=(target, vs) if vs else (target,),
        load=parse_load(load_text),
        data=data,
        prices=load_prices(prices) if prices else Prices(),
        duration_s=seconds(duration) if duration else None,
        warmup_s=_seconds_or_zero(warmup),
        deadline_ms=deadline_ms,
        patience_s=_seconds_or_zero(patience),
        rounds=rounds,
        seed=seed,
    )
    _check(asked)
    with progress(quiet=as_json) as listener:
        document = _measure(asked, listener)
    if as_json:
        emit("bench", document)
    else:
        _print(document)


def _check(asked: _Asked) -> None:
    if len(asked.names) == 2 and asked.load != Load(kind="closed"):
        raise UsageError("A comparison is paired with one caller.", remedy="Leave out --load, or write closed:1.")
    if asked.rounds < 6:
        raise UsageError("A comparison needs at least 6 rounds.", remedy="Write --rounds 40.")
    if asked.deadline_ms is not None and not 0 < asked.deadline_ms < 1e9:
        raise UsageError("A deadline is a positive time in ms.", remedy="Write, for example, --deadline-ms 20.")
    if asked.seed < 0:
        raise UsageError("A seed is a whole number from 0.", remedy="Write --seed 0.")


def _seconds_or_zero(text: str) -> float:
    """Zero is a time here: no warm-up, no patience."""
    return 0.0 if text.strip() in ("0", "0s") else seconds(text)


def _measure(asked: _Asked, listener: Listener) -> dict[str, Any]:
    """The document of `hasten bench --json`, without its schema."""
    import msgspec

    from hasten.cli.documents import figure_document
    from hasten.engine.host import environment
    from hasten.measure.circumstances import Machine, circumstances
    from hasten.measure.contention import Watch
    from hasten.targets import open_targets

    listener(Progress(stage="loading"))
    machine, watch = Machine(), Watch(asked.patience_s)
    with open_targets(asked.names, asked.data) as opened:
        before = machine.snapshot()
        compared = _compare(asked, opened.targets, watch, listener) if len(opened.targets) == 2 else {}
        sides = {
            key: _side(asked, name, target, watch, listener)
            for key, name, target in zip("ab", asked.names, opened.targets, strict=False)
        }
        found = circumstances(before, machine.snapshot())
    rounds = compared.pop("rounds", {})
    return {
        **sides,
        **compared,
        "load": _load_document(asked),
        "data": {"name": opened.data, "samples": opened.samples},
        "circumstances": {
            **{name: figure_document(figure) for name, figure in found.items()},
            "waited_s": watch.waited_s,
            **rounds,
        },
        "environment": msgspec.to_builtins(environment()),
    }


def _compare(asked: _Asked, targets: Any, watch: Any, listener: Listener) -> dict[str, Any]:
    from hasten.cli.documents import figure_document
    from hasten.measure.versus import compare_targets
    from hasten.stats.ratio import compare

    def tick(done: int) -> None:
        listener(Progress(stage="comparing", done=done, total=asked.rounds))

    found = compare_targets(targets[0], targets[1], rounds=asked.rounds, seed=asked.seed, watch=watch, tick=tick)
    rounds = {"rounds": found.rounds, "rounds_repeated": found.repeated, "rounds_contended": found.contended}
    return {"ratio": figure_document(found.ratio), "verdict": compare(found.ratio), "rounds": rounds}


def _side(asked: _Asked, name: str, target: Any, watch: Any, listener: Listener) -> dict[str, Any]:
    """Put the load on one target; its figures, counts and cost."""
    import msgspec

    from hasten.cli.documents import figure_document
    from hasten.measure.circumstances import run_load_watched
    from hasten.measure.cost import cost_per_million

    listener(Progress(stage=f"load on {name}"))
    found = run_load_watched(
        target,
        asked.load,
        asked.duration_s,
        watch,
        seed=asked.seed,
        warmup_s=asked.warmup_s,
        deadline_ms=asked.deadline_ms,
    )
    result = found.result
    cost = cost_per_million(result.throughput_rps, asked.prices)
    if cost.value is not None:
        cost = msgspec.structs.replace(cost, method="price of the machine over the throughput at this load")
    return {
        "target": name,
        **{figure: figure_document(getattr(result, figure)) for figure in _FIGURES},
        "cost_per_million_usd": figure_document(cost),
        **{count: getattr(result, count) for count in _COUNTS},
        "contended": found.contended,
        "repeated": found.repeated,
    }


def _load_document(asked: _Asked) -> dict[str, Any]:
    load = asked.load
    length = length_s(load, asked.duration_s)
    return {
        "kind": load.kind,
        "value": load.value,
        "cv": load.cv,
        "rates_rps": list(load.rates),
        "step_s": load.step_s,
        "path": load.path,
        # A trace without a limit lasts until its last arrival.
        "duration_s": None if length == float("inf") else length,
        "warmup_s": asked.warmup_s,
        "deadline_ms": asked.deadline_ms,
        "seed": asked.seed,
    }


def _print(document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    sides = [document[key] for key in "ab" if key in document]
    table = Table("target", "p50 ms", "p95 ms", "p99 ms", "predictions/s", "failed")
    for side in sides:
        table.add_row(side["target"], *(_cell(side[figure]) for figure in _COLUMNS), str(side["failed"]))
    Console().print(table)
    for side in sides:
        for line in _lines(side):
            click.echo(f"{side['target']}: {line}")
    if "ratio" in document:
        click.echo(f"{sides[0]['target']} against {sides[1]['target']}: {_verdict(document)}")
    click.echo(_surroundings(document["circumstances"]))


def _lines(side: dict[str, Any]) -> list[str]:
    """What the table has no room for: only where there is something to say."""
    lines: list[str] = []
    if side["attainment"]["value"] is not None:
        share = {key: 100 * side["attainment"][key] for key in ("value", "low", "high")}
        lines.append(f"{_cell(share)} % answered in time; goodput {_cell(side['goodput_rps'])} predictions/s")
    if side["cost_per_million_usd"]["value"] is not None:
        lines.append(f"{_cell(side['cost_per_million_usd'])} USD per million predictions")
    if side["failures"]:
        lines.append("failed: " + ", ".join(f"{count} {kind}" for kind, count in side["failures"].items()))
    words = {"unanswered": "not answered", "unsent": "not sent for want of a caller", "late": "sent late"}
    told = [f"{side[count]} {word}" for count, word in words.items() if side[count]]
    if told:
        lines.append(f"of {side['requests']} requests {', '.join(told)}")
    if side["contended"]:
        lines.append("measured on a contended machine")
    return lines


def _verdict(document: dict[str, Any]) -> str:
    ratio = document["ratio"]
    words = {"faster": "faster", "slower": "slower", "no_difference": "no difference found"}[document["verdict"]]
    if ratio["value"] is None:
        return f"{words}: {ratio['reason']}"
    return f"{words}: {ratio['value']:.3f} times as fast ({ratio['low']:.3f} to {ratio['high']:.3f})"


def _surroundings(found: dict[str, Any]) -> str:
    steal, others, clock = (found[key]["value"] for key in ("steal_share", "cores_busy_with_others", "frequency_mhz"))
    parts = [
        "steal unknown" if steal is None else f"{steal:.1%} of the time stolen by the host",
        "other load unknown" if others is None else f"{others:.2f} cores busy with other processes",
        "clock unknown" if clock is None else f"{clock:.0f} MHz",
        f"{found['waited_s']:.1f} s waited for a quiet machine",
    ]
    if "rounds" in found:
        parts.append(
            f"{found['rounds']} rounds, {found['rounds_repeated']} repeated, {found['rounds_contended']} contended"
        )
    return "machine: " + "; ".join(parts)


def _cell(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return figure["reason"]
    if figure["low"] is None:
        return f"{figure['value']:.2f}"
    high = "open" if figure["high"] is None else f"{figure['high']:.2f}"
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {high})"
