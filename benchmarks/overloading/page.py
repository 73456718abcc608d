"""docs/overload.md: the bars, what was found, and how it was taken."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from hasten.engine.host import environment
from hasten.spec.measurement import Figure
from overloading.arriving import LEAD_IN_S
from overloading.outcome import Outcome
from overloading.subjects import BATCH, MIX, NAMES, SERVING, lanes_of
from overloading.verdict import Bar, Cell, Found, bars, best_fixed, middle, proportion, refused_ms
from servers import triton

__all__ = ["page"]

# Later than this it was not the load that was asked for.
_LATE_MS = 2.0
INTRODUCTION = """\
# Overload

Written by `make bench-overload`. A server runs pinned to the first core together with its engine (onnxruntime, f32,
one thread, at most {batch} rows a batch){compiled}; requests of one row come over HTTP from the second core, in an
open loop: each is sent when it is due, whatever became of those before, and its time counts from then. {rounds}
round(s) of {seconds:g} s a run, after a lead-in of {lead_in:g} s{took}; hasten's loads take three turns each (with
--short one). Figures are medians over rounds and turns, shares of requests are over all of them with Wilson
intervals. Load and goodput are multiples of the capacity: what this server
carries in a closed loop of {callers} callers. Of the batcher, the best fixed setting is looked for on every other turn
and judged on the turns between, since the luckiest of several would be ahead of itself; *open* is a bar that the value
misses and the interval reaches.

Lanes: {mix}. critical is to be answered within 5 full batches' time, standard within 10, background within {age:g} s,
with a minimum share of 5 %. A refused request, an error, and an answer that comes too late all count as missed.
Goodput is answers in time. Arrivals: Poisson, Gamma with a coefficient of variation of 4, MMPP (two states of 1 s on
average: a quarter of the rate, seven quarters; busy at the same times at every load), and a step (half of the
capacity, the load for the middle third, which is judged, and half again).

Triton {triton} has the same ONNX Runtime in its Python backend (the wheel of nvidia-pytriton {wheel} brings no
other), dynamic batching, the same lanes as priority levels, and queue policies that refuse a request once its
deadline leaves no time for a full batch. It gets the same load in requests per second. It has no minimum shares, and
refuses on arrival only where a queue is full. The ladder is that of a bundle of `hasten optimize`, served from the
reference (float) downwards; its bound on the loss of accuracy is 0.005, or as much more as a first step needs, at
most 0.05.
"""


def page(
    found: Sequence[Found],
    drawings: Mapping[str, Sequence[Path]],
    around: Mapping[str, Figure],
    given: argparse.Namespace,
) -> str:
    """The page, in Markdown."""
    here = environment()
    mix = ", ".join(f"{share:.0%} {name}" for share, name in zip(MIX, NAMES, strict=True))
    words = {"batch": BATCH, "callers": 2 * BATCH, "mix": mix, "triton": triton.TRITON_VERSION, "wheel": triton.VERSION}
    took = " and ".join(f"{one.took_s / 60:.0f} minutes for {one.model}" for one in found if one.took_s)
    words["compiled"] = "; hasten's request path is compiled (decision 0024)" if given.native else ""
    words |= {"took": f" ({took})" if took else "", "lead_in": LEAD_IN_S, "age": lanes_of(1.0)[2].max_age_s}
    lines = [
        *INTRODUCTION.format(**words, rounds=given.rounds, seconds=given.seconds).splitlines(),
        "",
        *verdicts([bar for one in found for bar in bars(one)]),
    ]
    for one in found:
        lines += _model(one, [path.relative_to(given.out.parent) for path in drawings.get(one.model, ())])
    lines += [
        "## Circumstances",
        f"- {here.processor}, {here.cores_logical} logical cores{', virtual' if here.virtual else ''}, {here.system}, "
        f"Python {here.python}, onnxruntime {version('onnxruntime')}, uvloop {version('uvloop')}.",
        *(f"- {name.replace('_', ' ')}: {_said(figure)}" for name, figure in around.items()),
        *([f"- {given.note}"] if given.note else []),
    ]
    return "\n".join(lines) + "\n"


def verdicts(judged: Sequence[Bar]) -> list[str]:
    """The bars as a table."""
    lines = ["| model | bar | asked | found | |", "|---|---|---|---|---|"]
    for bar in judged:
        word = "**missed**" if bar.word == "missed" else bar.word
        lines.append(f"| {bar.model} | {bar.name} | {bar.asked} | {bar.found} | {word} |")
    return [*lines, ""]


def _model(found: Found, drawings: Sequence[Path]) -> list[str]:
    own = ", ".join(f"{name} {rate:.1f}/s" for name, rate in sorted(found.own_capacity.items()))
    rounds = ", ".join(f"{rate:.1f}" for rate in found.capacities)
    lines = [
        f"## {found.model}",
        f"Capacity {found.capacity:.1f} requests/s (by round: {rounds}): "
        f"a batch of {BATCH} takes {found.batch_s * 1e3:.0f} ms. In a closed loop: {own}.",
        f"The generator sent its requests {_late_ms(found):.2f} ms late at p99 in its worst run"
        + (f", {_LATE_MS:g} ms or more: **other work disturbed it**." if _late_ms(found) >= _LATE_MS else "."),
        *(f"Not run: {trouble}" for trouble in found.troubles),
        "",
        *(f"![{path.stem}]({path.as_posix()})" for path in drawings),
        "",
        "| server | arrivals | load | goodput | critical | standard | background | background of answers "
        "| refusals p99, ms | variants |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in sorted(found.runs, key=lambda cell: (cell.server, cell.kind, cell.load)):
        lines.append(_row(cell, found.runs[cell], found.capacity))
    return [*lines, "", *_crowd(found), *_batcher(found)]


def _late_ms(found: Found) -> float:
    return max((one.late_ms for runs in (found.runs, found.crowd) for some in runs.values() for one in some), default=0)


def _row(cell: Cell, runs: Sequence[Outcome], capacity: float) -> str:
    cells = [cell.server, cell.kind, f"{cell.load:g}", f"{middle(one.goodput for one in runs) / capacity:.2f}"]
    cells += [f"{middle(one.attainment(lane) for one in runs):.2%}" for lane in range(len(NAMES))]
    cells.append(f"{middle(one.share(2) for one in runs):.1%}")
    refused = refused_ms(runs)
    cells.append(f"{np.percentile(refused, 99):.2f}" if refused.size else "")
    answers: dict[str, int] = {}
    for one in runs:
        for name, count in one.variants.items():
            answers[name] = answers.get(name, 0) + count
    cells.append(", ".join(f"{name} {n / sum(answers.values()):.0%}" for name, n in answers.items() if name))
    return f"| {' | '.join(cells)} |"


def _crowd(found: Found) -> list[str]:
    if not found.crowd:
        return []
    lines = [
        "Critical work at half of the capacity beside background work at three times it:",
        "",
        "| server | critical in time | background of answers | goodput |",
        "|---|---|---|---|",
    ]
    for server, runs in sorted(found.crowd.items()):
        critical = proportion(sum(one.good[0] for one in runs), sum(one.due[0] for one in runs))
        goodput = middle(one.goodput for one in runs) / found.capacity
        lines.append(f"| {server} | {critical} | {middle(one.share(2) for one in runs):.1%} | {goodput:.2f} |")
    return [*lines, ""]


def _batcher(found: Found) -> list[str]:
    loads = sorted({load for _, load in found.batcher})
    if not loads:
        return []
    lines = [
        f"Answers per second, no lanes, Poisson, by setting (batch, delay). Adaptive has {SERVING.max_batch} rows and "
        f"{SERVING.max_delay_ms:g} ms at most:",
        "",
        f"| setting | {' | '.join(f'{load:g} x' for load in loads)} |",
        "|---" * (len(loads) + 1) + "|",
    ]
    for setting in dict.fromkeys(
        one for one, _ in sorted(found.batcher, key=lambda key: (key[0].batch, key[0].delay_ms))
    ):
        rates = found.throughput(setting)
        marks = ["**" if best_fixed(found, load)[0] == setting else "" for load in loads]
        # A run that was ended early has not all of them.
        cells = [
            f"{mark}{rates[load]:.1f}{mark}" if load in rates else "" for mark, load in zip(marks, loads, strict=True)
        ]
        lines.append(f"| {setting} | {' | '.join(cells)} |")
    return [*lines, ""]


def _said(figure: Figure) -> str:
    return f"not told ({figure.reason})" if figure.value is None else f"{figure.value:.3g}"
