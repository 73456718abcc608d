"""Predictions beside what the real server gave, and the page of `calibration.py`. Pure: everything comes in."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from hasten.spec.environment import Environment
from hasten.spec.serving import Prediction, Rehearsal
from hasten.spec.values import Value

__all__ = ["CLOSE", "Row", "errors", "page"]

CLOSE = 0.15


class Row(Value, frozen=True):
    """One load on one served variant: `share` of what it carries, what was predicted before, and what was found."""

    model: str
    variant: str
    serving: str
    share: float
    predicted: Prediction
    found: Rehearsal

    def __str__(self) -> str:
        told, seen = self.predicted, self.found
        return (
            f"{self.model} at {self.share:.0%}: p99 {told.latency_p99_ms.value or 0:.1f} ms predicted, "
            f"{seen.latency_p99_ms.value or 0:.1f} measured; {told.throughput_rps.value or 0:.1f}/s predicted, "
            f"{seen.throughput_rps.value or 0:.1f} measured"
        )


def errors(rows: Sequence[Row], name: str) -> list[float]:
    """By how much predictions of a figure miss what was measured, signed: -0.1 is 10 % too low."""
    pairs = [(getattr(row.predicted, name).value, getattr(row.found, name).value) for row in rows]
    return [told / seen - 1 for told, seen in pairs if told is not None and seen]


def page(rows: Sequence[Row], host: Environment) -> str:
    """The whole page."""
    where = f"{host.processor}, {host.cores_physical} cores, {' '.join(host.features)}{', virtual' * host.virtual}"
    lines = [
        "# Does the simulated server predict the real one?",
        "",
        "Made by `make bench-calibration`. Serving defaults are chosen by simulating the server's own scheduler with "
        "measured service times. Here the prediction is held against the real server over loopback, with Poisson "
        "arrivals at shares of what it carries. Server, engine and clients share the machine. Each prediction is made "
        "before its load is put on; errors are those of the prediction, the median over the repeats, with all of them "
        f"in brackets. The bar is {CLOSE:.0%}.",
        "",
        f"Machine: {where}.",
        "",
        "| model | served | load | p50 off by | p99 off by | predictions/s off by | p99 within the bar |",
        "|---|---|---|---|---|---|---|",
    ]
    groups = dict.fromkeys((row.model, row.variant, row.serving, row.share) for row in rows)
    lines += [_row(key, [row for row in rows if (row.model, row.variant, row.serving, row.share) == key])
              for key in groups]  # fmt: skip
    return "\n".join([*lines, ""])


def _row(key: tuple[str, str, str, float], rows: Sequence[Row]) -> str:
    model, variant, serving, share = key
    tail = errors(rows, "latency_p99_ms")
    near = sum(abs(error) <= CLOSE for error in tail)
    rate = median(row.found.offered_rps for row in rows)
    cells = [_text(errors(rows, name)) for name in ("latency_p50_ms", "latency_p99_ms", "throughput_rps")]
    failed = sum(row.found.failed for row in rows)
    lost = f"; {failed} not answered" if failed else ""
    load = f"{share:.0%}, {rate:.4g}/s{lost}"
    return f"| {' | '.join([model, f'`{variant}`, {serving}', load, *cells, f'{near} of {len(rows)}'])} |"


def _text(found: Sequence[float]) -> str:
    if not found:
        return "not measured"
    return f"{median(found):+.0%} ({', '.join(f'{error:+.0%}' for error in found)})"
