"""Does hasten's load agree with MLPerf's? The same session under both, in turn, on ppocr-rec. Writes docs/loadgen.md.

One command: make bench-loadgen. MLCommons LoadGen is the load generator of the MLPerf Inference benchmarks.
SingleStream is hasten's closed:1, Server is poisson:RPS, and Offline is a trace whose requests are all due at once.
Both drive one session in this process, through the same object; each round runs both in random order and gives one
ratio for each figure. Exit status 1 unless the whole 95 % interval of every judged ratio lies within 5 %.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import mlperf_loadgen as lg
import numpy as np

from hasten.data.feed import feed
from hasten.engine.base import engines
from hasten.engine.host import environment
from hasten.measure.circumstances import Machine, circumstances
from hasten.measure.contention import Watch
from hasten.measure.load import Load
from hasten.measure.traffic import CALLERS, run_load
from hasten.spec.measurement import Figure
from hasten.spec.target import Target
from hasten.stats.ratio import speedup
from hasten.targets import LocalTarget
from hasten.zoo.open import zoo_data, zoo_model

PAGE = Path(__file__).parent.parent / "docs" / "loadgen.md"
BEGIN, END = "<!-- figures: written by make bench-loadgen -->", "<!-- end of figures -->"
MODEL = "ppocr-rec"
TOLERANCE = 0.05
SAMPLES = 32
# Share of the throughput of one caller that the open load asks for: enough that requests queue now and then.
UTILISATION = 0.3
# Requests of a run, at least: a p95 needs 72.
FEWEST = 100
UNITS = {
    "p50_ms": "p50 latency, ms",
    "p95_ms": "p95 latency, ms",
    "rate": "predictions/s",
    "kept": "answered over offered rate",
}

Run = Callable[[], dict[str, float]]


@dataclass
class Scenario:
    """One traffic pattern under both tools, and what they found, by figure and round. `judged` must agree."""

    name: str
    ours: str
    hasten: Run
    loadgen: Run
    judged: tuple[str, ...]
    found: dict[str, list[dict[str, float]]] = field(default_factory=lambda: {"hasten": [], "loadgen": []})

    def round(self, rng: np.random.Generator) -> None:
        for tool in rng.permutation(["hasten", "loadgen"]):
            self.found[tool].append({"hasten": self.hasten, "loadgen": self.loadgen}[tool]())

    def ratio(self, figure: str) -> Figure:
        """hasten's figure over LoadGen's, paired by round."""
        mine, other = ([one[figure] for one in self.found[tool]] for tool in ("hasten", "loadgen"))
        return speedup(mine, other)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=12, help="interleaved rounds, at least 6")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one run")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for a quiet machine, in all")
    given = parser.parse_args()
    data = zoo_data(MODEL)
    # One thread: it is the load that is compared, and threads of an engine that wait for each other add noise to both.
    session = engines.get("onnxruntime").load(zoo_model(MODEL), Target(engine="onnxruntime", threads=1))
    samples = [feed(session.signature, [data.inputs(i)]) for i in range(SAMPLES)]
    target, watch, machine = LocalTarget(session, samples), Watch(given.patience), Machine()
    scenarios = list(make(target, given.seconds))
    rng, contended, before = np.random.default_rng(0), 0, machine.snapshot()
    for number in range(given.rounds):
        contended += not watch.round_is_quiet()
        for scenario in scenarios:
            scenario.round(rng)
        print(f"round {number + 1} of {given.rounds}", file=sys.stderr, flush=True)
    around = circumstances(before, machine.snapshot())
    session.close()
    table, agree = summary(scenarios)
    words = f"{contended} of {given.rounds} rounds began on a contended machine"
    text = f"{table}\n\n{surroundings(around, words)}\n"
    print(text)
    page = PAGE.read_text()
    PAGE.write_text(page[: page.index(BEGIN)] + f"{BEGIN}\n{text}" + page[page.index(END) :])
    return 0 if agree else 1


def make(target: LocalTarget, seconds: float) -> Iterator[Scenario]:
    """The three scenarios, sized by a pilot of one caller so that every run has enough requests for a p95."""
    pilot = run_load(target, Load(kind="closed"), 2.0).throughput_rps.value or 1.0
    rate = round(UTILISATION * pilot, 1)
    alone, shared = max(seconds, FEWEST / pilot), max(seconds, FEWEST / rate)
    count = round(pilot * alone)
    seeds = iter(range(1, 1_000_000))
    trace = Path(tempfile.mkdtemp()) / "at-once.txt"
    trace.write_text("0\n" * count)
    yield Scenario(
        name="SingleStream",
        ours="closed:1",
        hasten=lambda: ours(target, Load(kind="closed"), alone),
        loadgen=lambda: theirs(target, "SingleStream", next(seeds), seconds=alone),
        judged=("p50_ms", "p95_ms", "rate"),
    )
    yield Scenario(
        name="Server",
        ours=f"poisson:{rate:g}",
        hasten=lambda: ours(target, Load(kind="poisson", value=rate), shared, seed=next(seeds)),
        loadgen=lambda: theirs(target, "Server", next(seeds), seconds=shared, rate=rate),
        judged=("p50_ms", "kept"),
    )
    yield Scenario(
        name="Offline",
        ours=f"a trace of {count} requests, all due at once",
        hasten=lambda: ours(target, Load(kind="trace", path=str(trace)), None),
        loadgen=lambda: theirs(target, "Offline", next(seeds), count=count),
        judged=("rate",),
    )


def ours(target: LocalTarget, load: Load, seconds: float | None, seed: int = 0) -> dict[str, float]:
    """hasten's figures of one run."""
    result = run_load(target, load, seconds, seed=seed, patience_s=600)
    assert result.requests == result.latency_p50_ms.n, "every request is answered"
    figures = {
        "p50_ms": result.latency_p50_ms.value,
        "p95_ms": result.latency_p95_ms.value,
        "rate": result.throughput_rps.value,
    }
    found = {name: value for name, value in figures.items() if value is not None}
    return found | ({"kept": found["rate"] / result.offered_rps} if result.offered_rps else {})


def theirs(
    target: LocalTarget, scenario: str, seed: int, *, seconds: float = 0.001, rate: float = 1.0, count: int = 1
) -> dict[str, float]:
    """LoadGen's figures of one run, from its own log."""
    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, scenario)
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms, settings.min_query_count = round(seconds * 1e3), count
    settings.server_target_qps, settings.offline_expected_qps = rate, 1.0
    settings.server_target_latency_ns = 10**10
    settings.schedule_rng_seed = settings.sample_index_rng_seed = settings.qsl_rng_seed = seed
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(CALLERS) as callers:
        logs = lg.LogSettings()
        logs.log_output.outdir = folder
        logs.enable_trace = False

        def answer(query: lg.QuerySample) -> None:
            target.call(query.index)
            lg.QuerySamplesComplete([lg.QuerySampleResponse(query.id, 0, 0)])

        def issue(queries: list[lg.QuerySample]) -> None:
            for query in queries:
                answer(query) if scenario == "SingleStream" else callers.submit(answer, query)

        system = lg.ConstructSUT(issue, lambda: None)
        library = lg.ConstructQSL(SAMPLES, SAMPLES, lambda indices: None, lambda indices: None)
        lg.StartTestWithLogSettings(system, library, settings, logs)
        lg.DestroyQSL(library)
        lg.DestroySUT(system)
        lines = (Path(folder) / "mlperf_log_detail.txt").read_text().splitlines()
    log = {entry["key"]: entry["value"] for entry in (json.loads(line.partition(":::MLLOG")[2]) for line in lines)}
    found = {
        "p50_ms": log["result_50.00_percentile_latency_ns"] / 1e6,
        "p95_ms": log["result_95.00_percentile_latency_ns"] / 1e6,
    }
    if scenario == "Server":
        completed = log["result_completed_samples_per_sec"]
        return {**found, "rate": completed, "kept": completed / log["result_scheduled_samples_per_sec"]}
    rates = {"SingleStream": "result_qps_without_loadgen_overhead", "Offline": "result_samples_per_second"}
    return {**found, "rate": log[rates[scenario]]}


def summary(scenarios: list[Scenario]) -> tuple[str, bool]:
    """The table, and whether every judged ratio agrees over its whole interval."""
    rows = ["| LoadGen | hasten | figure | LoadGen's | hasten's | hasten over LoadGen | within 5 % |"]
    rows.append("|---|---|---|---:|---:|---:|---|")
    agree = True
    for scenario in scenarios:
        for figure, words in UNITS.items():
            if all(figure in one for tool in scenario.found.values() for one in tool):
                verdict = "not judged"
                ratio = scenario.ratio(figure)
                if figure in scenario.judged:
                    within = ratio.low is not None and ratio.low >= 1 - TOLERANCE and ratio.high <= 1 + TOLERANCE
                    agree, verdict = agree and within, "yes" if within else "no"
                medians = [np.median([one[figure] for one in scenario.found[tool]]) for tool in ("loadgen", "hasten")]
                cells = [scenario.name, scenario.ours, words, *(f"{m:.4g}" for m in medians), interval(ratio), verdict]
                rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows), agree


def interval(figure: Figure) -> str:
    if figure.value is None:
        return str(figure.reason)
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def surroundings(around: dict[str, Figure], words: str) -> str:
    here = environment()
    clock, steal, others = (around[n] for n in ("frequency_mhz", "steal_share", "cores_busy_with_others"))
    told = [
        f"{here.processor}, {here.cores_logical} logical cores{', virtual' if here.virtual else ''}, {here.system}",
        f"onnxruntime {version('onnxruntime')}, LoadGen {version('mlcommons-loadgen')}, Python {here.python}",
        "clock not told by the machine" if clock.value is None else f"{clock.value:.0f} MHz",
        "steal not told" if steal.value is None else f"{steal.value:.1%} of the time stolen by the host",
        "other load not told" if others.value is None else f"{others.value:.2f} cores busy with other processes",
        words,
    ]
    return "Measured on: " + "; ".join(told) + "."


if __name__ == "__main__":
    sys.exit(main())
