"""docs/serving_benchmarks.md: figures, how they were taken, and the predictions that were made before."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from hasten.engine.host import environment
from hasten.spec.measurement import Figure
from servers import bentoml, litserve, mlserver, rayserve, triton
from serving.cases import COMPILED, COMPILED_LOCAL
from serving.real import BATCH, REAL_LONGER
from serving.verdict import REAL_BAR, Race, RealRace, enough, interval

__all__ = ["page"]

# Requests per second over the best peer's, and rows per second over the engine's: said before the first measurement.
PREDICTED = {
    "HTTP, 128 floats, binary": 0.9,
    "HTTP, 128 floats, JSON": 0.8,
    "gRPC, 128 floats": 0.7,
    "HTTP, 600 KB, binary": 1.3,
    "gRPC, 600 KB": 1.0,
    "ppocr-rec": 0.95,
    "minilm": 0.90,
}
INTRODUCTION = """\
# Serving benchmarks

Written by `make bench-serve`. Each server stands before an identity model, pinned to the first core together with its
workers; all but the one that is asked are stopped meanwhile, since some work at rest, too (Ray's processes took 6 % of
the core). The load comes from the second core: wrk over HTTP, h2load over gRPC, {connections} connections with one
request each under way. {rounds} rounds of {seconds:g} s a burst, servers and cases in random order within each. hasten
runs as `hasten serve` with every check, its scheduler, and the engine in a process of its own: in plain Python, as
from its source, and with its request path compiled, as in the wheel for one platform (`make wheel`, decision 0024);
each once more, for information, with `isolation = "none"`, the engine on a thread of the server. A server's answer is
compared with what was sent before the clock runs. Figures are medians over rounds; ratios are paired by round, above 1
where hasten is better, with 95 % intervals (`hasten.stats.speedup`). A bar is met where the typical round reaches it,
and neither p50 nor p99 is behind the best peer's. The command judges the compiled path, which is what pip takes of a
release where it fits, and plain Python where nothing was compiled. Processor time is that of the server with its
workers for one request: other load on the machine moves it less than the rate, and its inverse is what a core could
carry on a machine without other load.
"""
APART = """\
## Who takes part, and how
- Triton {triton} from the wheel of nvidia-pytriton {wheel}: Python backend, dynamic batching, one instance.
- MLServer {mlserver}, `parallel_workers` 0: small tensors, over HTTP in JSON, since it takes no binary tensors there.
- LitServe {litserve}, BentoML {bentoml} and Ray Serve {ray}: JSON of their own, HTTP only; one worker or replica each.
"""


def page(
    races: Sequence[Race],
    reals: Sequence[RealRace],
    around: Mapping[str, Figure],
    falls: Mapping[str, int],
    given: argparse.Namespace,
) -> str:
    """The page, in Markdown. `falls` says how often a peer was started anew."""
    here = environment()
    lines = [
        *INTRODUCTION.format(**vars(given)).splitlines(),
        "",
        *_verdicts(races, reals),
        *(line for race in races for line in _race(race)),
        *_reals(reals),
        *APART.format(
            triton=triton.TRITON_VERSION,
            wheel=triton.VERSION,
            mlserver=mlserver.VERSION,
            litserve=litserve.VERSION,
            bentoml=bentoml.VERSION,
            ray=rayserve.VERSION,
        ).splitlines(),
        *(
            f"- Bursts that {name} did not survive, played again by a new one: {count}."
            for name, count in falls.items()
        ),
        "",
        "## Circumstances",
        f"- {here.processor}, {here.cores_logical} logical cores{', virtual' if here.virtual else ''}, {here.system}, "
        f"Python {here.python}, onnxruntime {version('onnxruntime')}, uvloop {version('uvloop')}.",
        *(f"- {name.replace('_', ' ')}: {_said(figure)}" for name, figure in around.items()),
        f"- All that is Python runs on {' '.join(sys.version.split())}.",
        *([f"- {given.note}"] if given.note else []),
    ]
    return "\n".join(lines) + "\n"


def _verdicts(races: Sequence[Race], reals: Sequence[RealRace]) -> list[str]:
    lines = [
        "| case | best peer | bar | plain Python over it, requests/s | | compiled | | predicted "
        "| plain, by processor time | compiled, no isolation |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for race in races:
        name, best = race.case.name, race.best
        cells = [name, best, f"{race.case.bar:g}", interval(race.ratio(best)), _word(race.reaches("hasten"))]
        has_compiled = COMPILED in race.found
        cells += (
            [interval(race.ratio(best, ours=COMPILED)), _word(race.reaches(COMPILED))] if has_compiled else [""] * 2
        )
        cells += [f"{PREDICTED[name]:g}", interval(race.ratio(best, "cpu_us"))]
        cells.append(interval(race.ratio(best, ours=COMPILED_LOCAL)) if COMPILED_LOCAL in race.found else "")
        lines.append(f"| {' | '.join(cells)} |")
    for real in reals:
        cells = [real.name, "its engine in process", f"{REAL_BAR:g}", interval(real.share), _word(enough(real.share))]
        cells += [interval(real.share_compiled), _word(enough(real.share_compiled))] if real.compiled else [""] * 2
        cells += [f"{PREDICTED[real.name]:g}", interval(real.share_by_cpu), ""]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _word(met: bool) -> str:
    return "met" if met else "**missed**"


def _race(race: Race) -> list[str]:
    lines = [
        f"## {race.case.name}",
        "| server | requests/s | p50, ms | p99, ms | processor, us "
        f"| {race.judged}: requests/s | {race.judged}: p50 | {race.judged}: p99 |",
        "|---|---:|---:|---:|---:|---|---|---|",
    ]
    for name in filter(race.found.__contains__, race.case.servers):
        cells = [name, f"{race.middle(name, 'rate'):,.0f}"]
        cells += [f"{race.middle(name, what):.3g}" for what in ("p50_ms", "p99_ms", "cpu_us")]
        against = ("rate", "p50_ms", "p99_ms") if name != race.judged else ()
        cells += [interval(race.ratio(name, what, race.judged)) for what in against] or [""] * 3
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _reals(reals: Sequence[RealRace]) -> list[str]:
    lines = [
        "## Real models",
        f"Single rows over HTTP from {2 * BATCH} connections, at most {BATCH} a batch, against batches of {BATCH} in a",
        "process without a server; one core and one engine thread (onnxruntime, f32) on both sides. Bursts are",
        f"{REAL_LONGER} times as long as above: what is under way at the end of one is not counted, and a row takes",
        "long.",
        "",
        "| model | row | through the server, rows/s | in process, rows/s | share | rows a batch at the server |",
        "|---|---|---:|---:|---|---:|",
    ]
    for real in reals:
        shapes = ", ".join(f"{name} {list(shape)}" for name, shape in real.shapes.items())
        rates = [f"{statistics.median(side):.3g}" for side in (real.server, real.engine)]
        cells = [real.name, shapes, *rates, interval(real.share), f"{statistics.median(real.batch):.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _said(figure: Figure) -> str:
    return f"not told ({figure.reason})" if figure.value is None else f"{figure.value:.3g}"
