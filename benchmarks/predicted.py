"""Predictions beside what the real server gave, and the page of `calibration.py`. Pure: everything comes in."""

from __future__ import annotations

from collections.abc import Sequence

from hasten.spec.environment import Environment
from hasten.spec.measurement import Figure
from hasten.spec.serving import Prediction, Rehearsal
from hasten.spec.values import Value

__all__ = ["CLOSE", "Row", "error", "page"]

CLOSE = 0.15


class Row(Value, frozen=True):
    """One load on one served variant: `share` of what it carries, what was predicted before, and what was found in so
    many turns; `disturbed` turns are left out, unless there are no others.
    """

    model: str
    variant: str
    serving: str
    share: float
    predicted: Prediction
    found: Rehearsal
    turns: int = 0
    disturbed: int = 0
    requests: int = 0

    def __str__(self) -> str:
        told, seen = self.predicted, self.found
        return (
            f"{self.model} at {self.share:.0%}: p99 {_figure(told.latency_p99_ms)} ms predicted, "
            f"{_figure(seen.latency_p99_ms)} measured, {_off(error(self, 'latency_p99_ms'))}; "
            f"{_figure(told.throughput_rps)}/s predicted, {_figure(seen.throughput_rps)} measured, "
            f"{_off(error(self, 'throughput_rps'))}"
        )


def error(row: Row, name: str) -> float | None:
    """By how much the prediction of a figure misses what was measured, signed: -0.1 is 10 % too low. None where one of
    them is missing.
    """
    told, seen = getattr(row.predicted, name).value, getattr(row.found, name).value
    return told / seen - 1 if told is not None and seen else None


def is_open(row: Row, name: str) -> bool:
    """Whether a prediction that is not close to what was measured is close to a value within its interval."""
    told, seen, off = getattr(row.predicted, name).value, getattr(row.found, name), error(row, name)
    if off is None or abs(off) <= CLOSE or seen.low is None or seen.high is None:
        return False
    return seen.low * (1 - CLOSE) <= told <= seen.high * (1 + CLOSE)


def page(rows: Sequence[Row], host: Environment) -> str:
    """The whole page."""
    where = f"{host.processor}, {host.cores_physical} cores, {' '.join(host.features)}{', virtual' * host.virtual}"
    within = [sum(abs(off) <= CLOSE for row in rows if (off := error(row, name)) is not None)
              for name in ("latency_p99_ms", "throughput_rps")]  # fmt: skip
    lines = [
        "# Does the simulated server predict the real one?",
        "",
        "Made by `make bench-calibration`. Serving defaults are chosen by simulating the server's own scheduler. "
        "Here what it predicts is held against the real server over loopback, in turns. A turn begins with a look "
        "at the server under other loads, Poisson arrivals at 45 % of what the look before said that it carries, "
        "then at 110 %. The log of the server tells how long engines took and what requests spent outside of them, "
        "when they met an idle server, met a busy engine, or had waited at the one load and the other, and what passes "
        "at an engine between two batches. From that latencies "
        "are predicted for Poisson arrivals at a share of what the server carries; "
        "then these arrivals are sent. Nothing of a load is known to its own prediction but the times at which "
        "requests are due. Server, engine and client share the machine, and the server logs each request.",
        "",
        f"Within {CLOSE:.0%} of what was measured: p99 in {within[0]} of {len(rows)} rows, and open in "
        f"{sum(is_open(row, 'latency_p99_ms') for row in rows)} more; throughput in {within[1]}.",
        "",
        "Intervals of what was measured are 95 %, by a bootstrap over seconds, since those who wait wait together; "
        "those of predictions are the spread of simulated runs, of which some have the machine move as it did "
        "within looks. A row is open where the prediction is that close to a "
        "value within the interval of what was measured, and not to its middle: it proves neither. Late requests were "
        "sent more than 5 ms after they were due, because their sender had no core; they count from when they were "
        "due.",
        "",
        "Turns in which other processes took more than 0.15 cores, or the host more than 2 % of the time, are left "
        "out, whatever they gave, and counted as disturbed. Where there were no others, they stand.",
        "",
        f"Machine: {where}.",
        "",
        "| model | served | load | requests, turns | p99 predicted, ms | p99 measured, ms | off by | within "
        f"{CLOSE:.0%} | requests/s predicted | measured | off by | within {CLOSE:.0%} |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        *(_row(row) for row in rows),
    ]
    return "\n".join([*lines, ""])


def _row(row: Row) -> str:
    told, seen = row.predicted, row.found
    lost = f"; {seen.failed} not answered" if seen.failed else ""
    late = f"; {seen.late} late" if seen.late else ""
    cells = [row.model, f"`{row.variant}`, {row.serving}", f"{row.share:.0%}, {seen.offered_rps:.4g}/s"]
    left_out = f"; {row.disturbed} disturbed" if row.disturbed else ""
    cells.append(f"{row.requests}, {row.turns}{left_out}{lost}{late}")
    for name in ("latency_p99_ms", "throughput_rps"):
        off = error(row, name)
        cells += [_figure(getattr(told, name)), _figure(getattr(seen, name)), _off(off)]
        cells.append("open" if is_open(row, name) else _verdict(off))
    return f"| {' | '.join(cells)} |"


def _verdict(off: float | None) -> str:
    return "not measured" if off is None else "yes" if abs(off) <= CLOSE else "no"


def _off(off: float | None) -> str:
    return "not measured" if off is None else f"{off:+.0%}"


def _figure(figure: Figure) -> str:
    if figure.value is None:
        return "not measured"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.4g}"
    return f"{figure.value:.4g} ({figure.low:.4g} to {figure.high:.4g})"
