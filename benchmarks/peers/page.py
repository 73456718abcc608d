"""Results as the page docs/benchmarks.md. Pure: everything that is said comes in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hasten.spec.environment import Environment
from hasten.spec.measurement import Figure, MetricInfo
from peers.outcome import Result, Row, best_peer, geometric_mean, reached, unbeaten

__all__ = ["BARS", "page"]

# Least ratio to the best peer on each model; geometric means to the best peer and to the usual engine.
BARS = {"each": 0.98, "peers": 1.15, "reference": 2.0}
_BOUNDS = {"accepted": "met", "unproven": "unproven", "rejected": "rejected", "absent": "-"}


def page(
    results: Sequence[Result],
    host: Environment,
    versions: dict[str, str],
    hasten: str,
    missing: Mapping[str, str] | None = None,
    note: str = "",
) -> str:
    """The whole page. `missing` are the models that have no result, each with the reason or an empty one: a mean over
    some of them is not one over all. `note` is a sentence on the circumstances.
    """
    lines = [*_head(host, versions, results)]
    if note:
        lines += ["", f"**{_plain(note)}.**"]
    if missing:
        told = ", ".join(f"{name} ({_plain(reason)})" if reason else name for name, reason in missing.items())
        lines += ["", f"**Not measured: {told}.** The means below are over the others only."]
    lines += [*_summary(results, hasten), *_losses(results, hasten)]
    for result in results:
        lines += _model(result, hasten)
    return "\n".join([*lines, *_contestants(results, hasten), ""])


def _head(host: Environment, versions: dict[str, str], results: Sequence[Result]) -> list[str]:
    where = f"{host.processor}, {host.cores_physical} cores, {' '.join(host.features)}{', virtual' * host.virtual}"
    dates = sorted({result.date for result in results})
    when = " to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "never"
    return [
        "# hasten and its peers",
        "",
        "Made by `make bench-optimize`. hasten optimizes each model under one objective, an accuracy drop of at most "
        "0.005, and its bundle then races what users of other tools would run, each tool with its own defaults and "
        "the same calibration samples. Every contestant has a process of its own and two threads. All take turns in "
        "the same rounds on the same holdout samples, batch 1, each while the others rest; ratios are paired by "
        "round, accuracy changes by sample; 95 % intervals. The bound is met where the whole interval of the change "
        "lies within it.",
        "",
        "ms is the mean time of a run in the middle round, so it moves with the machine; ratios do not. A ratio above "
        "1 means faster. "
        "In the columns *hasten against it*, above 1 means that hasten is faster than the contestant of that line. "
        "Throughput is that of the better of one instance on two threads and two instances on one thread each.",
        "",
        f"Machine: {where}. Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}. "
        f"Measured: {when}.",
    ]


def _summary(results: Sequence[Result], hasten: str) -> list[str]:
    rows = [(result, _lead(result, hasten), _lead(result, hasten, throughput=True)) for result in results]
    lines = [
        "",
        "## Summary",
        "",
        "| model | best peer within the bound | hasten against it | not below 0.98 "
        "| best in throughput | hasten against it | hasten against the usual engine |",
        "|---|---|---|---|---|---|---|",
    ]
    for result, (peer, lead), (other, rate) in rows:
        own = result.row(hasten)
        ratio = f"{times(own.ratio)} ({_label(result, result.reference)})"
        words = (result.model, peer, times(lead), reached(lead, BARS["each"]), other, times(rate), ratio)
        lines.append(f"| {' | '.join(words)} |")
    lines += ["", "| geometric mean over models | hasten | bar | |", "|---|---|---|---|", *_means(results, hasten, "")]
    repaired = [result for result in results if result.repair]
    if repaired and len(repaired) < len(results):
        names = ", ".join(result.model for result in repaired)
        lines += _means([result for result in results if not result.repair], hasten, f" without {names}")
        lines += ["", *(f"{result.model}: {result.repair}" for result in repaired)]
    return lines


def _means(results: Sequence[Result], hasten: str, which: str) -> list[str]:
    means = (
        ("latency against the best peers", "peers", [_lead(r, hasten)[1] for r in results]),
        ("throughput against the best peers", "peers", [_lead(r, hasten, throughput=True)[1] for r in results]),
        ("latency against the usual engine", "reference", [r.row(hasten).ratio for r in results]),
    )
    return [
        f"| {name}{which} | {times(mean)} | {BARS[bar]:.2f} | {reached(mean, BARS[bar])} |"
        for name, bar, figures in means
        for mean in (geometric_mean(figures),)
    ]


def _lead(result: Result, hasten: str, *, throughput: bool = False) -> tuple[str, Figure]:
    """The best peer's name, and hasten against it."""
    peer = best_peer(result.rows, hasten, throughput=throughput)
    if peer is None:
        own = result.row(hasten)
        return "none", own.rps_against if throughput else own.against
    return peer.label, peer.rps_against if throughput else peer.against


def _losses(results: Sequence[Result], hasten: str) -> list[str]:
    """Where a peer is faster: the most useful part of the page."""
    found = [(result, row) for result in results for row in unbeaten(result.rows, hasten)]
    lines = ["", "## Where a peer is faster than hasten", ""]
    if not found:
        return [*lines, "Nowhere beyond doubt."]
    lines += ["| model | peer | hasten against it | its accuracy change | bound |", "|---|---|---|---|---|"]
    for result, row in found:
        changed = change(row.change, result.metric)
        lines.append(f"| {result.model} | {row.label} | {times(row.against)} | {changed} | {_BOUNDS[row.bound]} |")
    return lines


def _model(result: Result, hasten: str) -> list[str]:
    waited = f"; {result.waited_s:.0f} s were spent waiting for a quiet machine" if result.waited_s >= 1 else ""
    lines = [
        "",
        f"## {result.model}",
        "",
        f"{result.about}. {result.metric.name} on {result.samples:,} holdout samples; {result.rounds} rounds{waited}. "
        f"hasten with a budget of {result.budget_s / 60:.3g} minutes: {result.hasten}",
        "",
        f"| contestant | ms | against {_label(result, result.reference)} | hasten against it | accuracy change "
        "| bound | instances × threads | predictions/s | hasten against it |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    measured = [row for row in result.rows if row.p50_ms.value is not None]
    for row in sorted(measured, key=lambda row: -(row.ratio.value or 0.0)):
        lines.append(f"| {' | '.join(_cells(row, result, hasten))} |")
    out = [f"{row.label}: {row.reason}" for row in result.rows if row.p50_ms.value is None]
    return [*lines, "", "Not in the race: " + "; ".join(_plain(item) for item in out) + "."] if out else lines


def _cells(row: Row, result: Result, hasten: str) -> list[str]:
    mine = row.id == hasten
    name = f"**{row.label}**" if mine else row.label
    return [
        name,
        _number(row.p50_ms.value, 3),
        "1" if row.id == result.reference else times(row.ratio),
        "" if mine else times(row.against),
        "none: the reference" if row.id == result.reference else _changed(row, result),
        _BOUNDS[row.bound],
        row.instances,
        _number(row.rps.value, 4) if row.rps.value is not None else "",
        "" if mine or row.rps.value is None else times(row.rps_against),
    ]


def _contestants(results: Sequence[Result], hasten: str) -> list[str]:
    """What each contestant is, once for all models."""
    rows = {row.id: row for result in results for row in result.rows if row.id != hasten}
    lines = ["", "## Contestants", "", "| contestant | what its users type |", "|---|---|"]
    lines += [f"| {row.label} | {row.settings} |" for row in rows.values()]
    own = [f"{result.model}: {result.row(hasten).settings}" for result in results]
    return [*lines, "| hasten | `hasten optimize` with `accuracy_drop_max = 0.005` |", "", "hasten's picks:", ""] + [
        f"- {_plain(item)}" for item in own
    ]


def times(figure: Figure) -> str:
    """A ratio with its interval."""
    if figure.value is None or figure.low is None or figure.high is None:
        return "not measured"
    return f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"


def change(figure: Figure, metric: MetricInfo) -> str:
    """A change of the metric with its interval; shares in points."""
    if figure.value is None or figure.low is None or figure.high is None:
        return f"not measured: {figure.reason}"
    scale, digits, unit = (100, 2, " points") if metric.unit == "share" else (1, 4, "")
    low, middle, high = (format(v * scale, f"+.{digits}f") for v in (figure.low, figure.value, figure.high))
    return f"{middle}{unit} ({low} to {high})"


def _changed(row: Row, result: Result) -> str:
    """The change, and on how many samples where a part of them was enough to reject it."""
    part = f", {row.change.n} samples" if 0 < row.change.n < result.samples else ""
    return change(row.change, result.metric) + part


def _label(result: Result, id_: str) -> str:
    return result.row(id_).label


def _number(value: float | None, digits: int) -> str:
    """So many significant digits, without an exponent."""
    if value is None or value <= 0:
        return "-"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(value)))}f}"


def _plain(text: str) -> str:
    """Fit for one line of a page."""
    return " ".join(text.split()).replace("|", "\\|").rstrip(".")
