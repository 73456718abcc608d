"""Latency, throughput and speedup: two processes take turns on the same samples.

A shared machine changes its speed by factors within minutes, so absolute times of two sessions say nothing. Here
each round runs both sides within milliseconds of each other, in random order, on the same samples, and gives one
ratio; drift moves both and cancels. While one side has its turn the other rests, and each turn begins with untimed
runs (`hasten.measure.turns`). Before the first round each side meets every shape of input once: many engines compile
for a shape when they first see it, which a service has behind it.

Speedup is over the rounds' ratios (`hasten.stats.ratio`) of the time that the same samples take together: a variant
may take longer for some samples than for others, and its middle time would not tell. Percentiles are over all timed
runs and are refused where the sample is too small; throughput is predictions per second of one caller that sends the
next request when the last is answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np

from hasten.data.dataset import Subset
from hasten.data.feed import feed, one_of_each_shape, sample_for
from hasten.measure.base import Arm, Pair, Plan
from hasten.measure.contention import Watch
from hasten.measure.turns import turn_ms
from hasten.spec.measurement import Figure
from hasten.spec.progress import Progress
from hasten.stats.percentiles import mean, percentile
from hasten.stats.ratio import speedup

__all__ = ["LatencyMeter", "Rounds", "glance", "interleave", "race", "race_times", "throughput"]

# Rounds of a glance: the fewest for which the interval of a ratio is worth reading.
_GLANCE = 8
# Samples that each side keeps while it is timed take no more memory than this, but for a few.
_KEPT_BYTES, _FEWEST_SAMPLES = 128 * 2**20, 8


class Rounds:
    """Milliseconds of every timed run, by round, of both sides. Each list is in time order."""

    def __init__(self) -> None:
        self.reference: list[list[float]] = []
        self.candidate: list[list[float]] = []
        self.contended = 0

    def said(self, figure: Figure) -> Figure:
        """The figure, with a word on contention where there was any."""
        if not self.contended or figure.value is None:
            return figure
        words = f"{self.contended} of {len(self.reference)} rounds on a contended machine"
        return msgspec.structs.replace(figure, method=f"{figure.method}; {words}")

    def means(self) -> tuple[list[float], list[float]]:
        """The mean time of a run in each round, for both sides: one pair for each round."""
        return [float(np.mean(r)) for r in self.reference], [float(np.mean(r)) for r in self.candidate]


class LatencyMeter:
    """Gives `latency_p50_ms`, `latency_p95_ms`, `latency_p99_ms`, `throughput_rps` and `speedup`."""

    name = "latency"
    names = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "throughput_rps", "speedup")

    def measure(self, pair: Pair) -> dict[str, Figure]:
        """Interleave and summarize."""
        rounds = interleave(pair)
        times = [one for part in rounds.candidate for one in part]
        reference, candidate = rounds.means()
        figures = {
            "latency_p50_ms": percentile(times, 50),
            "latency_p95_ms": percentile(times, 95),
            "latency_p99_ms": percentile(times, 99),
            "throughput_rps": throughput(times),
            "speedup": speedup(reference, candidate, seed=pair.plan.seed),
        }
        return {name: rounds.said(figure) for name, figure in figures.items()}


def interleave(pair: Pair) -> Rounds:
    """Run the plan: rounds in which both sides run the same samples, in random order of sides."""
    plan, rng = pair.plan, np.random.default_rng(pair.plan.seed)
    slots = _put_samples([pair.reference, pair.candidate], pair.data, plan)
    rounds = Rounds()
    for number in range(plan.rounds):
        rounds.contended += not pair.watch.round_is_quiet()
        chosen = [int(slot) for slot in rng.choice(slots, plan.runs)]
        sides: list[tuple[Arm, list[list[float]]]] = [
            (pair.reference, rounds.reference),
            (pair.candidate, rounds.candidate),
        ]
        for arm, times in sides if rng.random() < 0.5 else reversed(sides):
            times.append(turn_ms(arm, chosen))
        pair.listener(Progress(stage=f"{pair.label}: latency", done=number + 1, total=plan.rounds))
    return rounds


def glance(pair: Pair) -> Figure:
    """Return the speedup from a few rounds of their own: enough to see that a candidate is far behind."""
    rounds = interleave(replace(pair, plan=replace(pair.plan, rounds=min(_GLANCE, pair.plan.rounds))))
    reference, candidate = rounds.means()
    return rounds.said(speedup(reference, candidate, seed=pair.plan.seed))


def race(reference: Arm, candidates: Mapping[str, Arm], data: Subset, plan: Plan, watch: Watch) -> dict[str, Figure]:
    """Return each candidate's speedup from rounds in which all of them run: they compare with each other too."""
    times = race_times({"": reference, **candidates}, data, plan, watch)
    return {name: speedup(times[""], times[name], seed=plan.seed) for name in candidates}


def race_times(arms: Mapping[str, Arm], data: Subset, plan: Plan, watch: Watch) -> dict[str, list[float]]:
    """Return each arm's mean milliseconds of a run, by round. All arms run in each round: any two can be paired."""
    rng = np.random.default_rng(plan.seed)
    slots = _put_samples(list(arms.values()), data, plan)
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(plan.rounds):
        watch.round_is_quiet()
        chosen = [int(slot) for slot in rng.choice(slots, plan.runs)]
        for name in rng.permutation(list(arms)):
            times[str(name)].append(float(np.mean(turn_ms(arms[str(name)], chosen))))
    return times


def throughput(times_ms: Sequence[float]) -> Figure:
    """Return predictions per second of one caller: the inverse of the mean time."""
    average = mean(times_ms)
    if average.value is None or average.low is None or average.high is None:
        return average
    return Figure(
        value=1e3 / average.value,
        low=1e3 / average.high,
        high=1e3 / max(average.low, 1e-9),
        n=average.n,
        method="one instance, one caller, batch 1",
    )


def _put_samples(arms: Sequence[Arm], data: Subset, plan: Plan) -> list[int]:
    """Give all sides the same samples, evenly spread over the data, and let each meet every shape among them."""
    size = sum(np.asarray(array).nbytes for array in data.inputs(0).values())
    count = min(plan.samples, len(data), max(_FEWEST_SAMPLES, _KEPT_BYTES // max(size, 1)))
    positions = np.linspace(0, len(data) - 1, count).astype(int).tolist()
    for arm in arms:
        samples = [sample_for(arm.signature, data, position) for position in positions]
        for slot, sample in enumerate(samples):
            arm.put(slot, feed(arm.signature, [sample]))
        turn_ms(arm, one_of_each_shape(samples), warmup=0)
    return list(range(count))
