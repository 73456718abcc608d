"""Which serving defaults for a variant: instances, threads, batch limit, queue delay. Chosen by simulation at the load
that the objectives name, or, where they name none, at a load that leaves the machine room to breathe.

Among the settings that carry the load within the latency objectives, the one that answers soonest at the percentile
that the objectives name is taken; what is only a hair better and more complicated is not.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hasten.fleet.simulate import Outside, Played, Service, poisson, simulate
from hasten.serve.core import Policy
from hasten.spec.measurement import Figure, unmeasured
from hasten.spec.serving import Deployment, Prediction, ServiceTimes, Serving
from hasten.spec.slo import Goal, Slo

__all__ = ["COMFORTABLE", "Question", "choose", "play", "pooled", "predict", "speed_needed"]

# Without a load in the objectives: the share of what the machine can carry at which it is asked about.
COMFORTABLE = 0.6
_REQUESTS, _RUNS = 1500, 5
# The first requests find an empty server.
_WARM = 0.1
# Of what arrives, so much must be answered in time for a load to count as carried.
_CARRIED = 0.99
_HAIR = 1.02
_MOST_SPEED = 16.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is asked: service times of one variant in every layout, the shape keys of its data, the goal, and what
    requests spend outside queue and engine.
    """

    variant: str
    times: Sequence[ServiceTimes]
    keys: Sequence[Hashable]
    goal: Goal
    outside: Outside = field(default_factory=Outside)
    seed: int = 0


def choose(question: Question) -> Deployment:
    """Return the serving defaults for a variant, with what was predicted for them and for the others."""
    capacity = max((item.rows_per_s for item in question.times), key=lambda figure: figure.value or 0.0)
    slo = question.goal.slo
    load = slo.throughput_rps or COMFORTABLE * (capacity.value or 1.0)
    settings = list(_settings(question.times))
    found = [(setting, predict(question, setting, load)) for setting in settings]
    ranked = sorted(found, key=lambda pair: _rank(pair[1], slo))
    best = _simplest(ranked, slo)
    return Deployment(
        variant=question.variant,
        serving=best[0],
        reason=_reason(best[1], load, slo),
        capacity_rps=capacity,
        cost_per_million_usd=_cost(question.goal, load, capacity),
        predicted=best[1],
        considered=tuple(pair for pair in ranked if pair[0] != best[0]),
        times=tuple(question.times),
    )


def predict(question: Question, serving: Serving, load_rps: float, *, speed: float = 1.0) -> Prediction:
    """Simulate Poisson arrivals at `load_rps` on `serving`; the interval of a figure is the spread of the runs."""
    runs: list[list[Played]] = []
    for run in range(_RUNS):
        rng = np.random.default_rng((question.seed, run))
        runs.append([play(question, serving, poisson(load_rps, _REQUESTS, rng), rng, speed=speed)])
    return pooled(runs, serving, load_rps, warm=_WARM)


def play(
    question: Question, serving: Serving, arrivals: Sequence[float], rng: np.random.Generator, *, speed: float = 1.0
) -> Played:
    """Play these very arrivals, seconds in order, through `serving`."""
    times = [t for t in question.times if (t.instances, t.threads) == (serving.instances, serving.threads)]
    policy = Policy(
        instances=serving.instances,
        max_batch=serving.max_batch,
        max_delay_s=serving.max_delay_ms / 1e3,
        # As the server waits by default.
        company="adaptive",
        queue_capacity=max(_REQUESTS, len(arrivals)),
    )
    service = Service(times, question.outside, speed=speed)
    return simulate(policy, service, arrivals, question.keys, rng)


def pooled(
    runs: Sequence[Sequence[Played]],
    serving: Serving,
    load_rps: float,
    *,
    warm: float = 0.0,
    expected: int | None = None,
) -> Prediction:
    """One prediction from simulated runs, each of which is made of parts that are looked at together. Of each part the
    first share `warm` of answers does not count. A figure is the median of the first `expected` runs, or of all, and
    its interval the spread of all.
    """
    latencies = [
        np.concatenate([np.array(part.latencies_s[int(warm * len(part.latencies_s)) :]) for part in run]) * 1e3
        for run in runs
    ]
    rates = [sum(len(part.latencies_s) for part in run) / max(sum(part.ended_s for part in run), 1e-9) for run in runs]
    return Prediction(
        load_rps=load_rps,
        latency_p50_ms=_spread([_percentile(one, 50) for one in latencies], expected),
        latency_p95_ms=_spread([_percentile(one, 95) for one in latencies], expected),
        latency_p99_ms=_spread([_percentile(one, 99) for one in latencies], expected),
        throughput_rps=_spread(rates, expected),
        utilisation=float(np.mean([part.utilisation(serving.instances) for run in runs for part in run])),
    )


def speed_needed(question: Question, serving: Serving, load_rps: float, *, speed: float = 1.0) -> float | None:
    """How many times as fast the machine would have to be for `serving` to meet the latency objectives at the load;
    1 where it does already, None where no sensible speed does. `speed` is how fast the engine is beside its server.
    """
    slo = question.goal.slo

    def meets(times: float) -> bool:
        return not _misses(predict(question, serving, load_rps, speed=speed * times), slo)

    if meets(1.0):
        return 1.0
    low, high = 1.0, _MOST_SPEED
    if not meets(high):
        return None
    while high / low > 1.03:
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if meets(middle) else (middle, high)
    return high


def _settings(times: Sequence[ServiceTimes]) -> Iterable[Serving]:
    """Every layout with every batch limit; waiting for company is tried for half the time of a run."""
    layouts = dict.fromkeys((item.instances, item.threads) for item in times)
    for (instances, threads), size in itertools.product(layouts, sorted({item.batch for item in times})):
        alone = next(t for t in times if (t.instances, t.threads, t.batch) == (instances, threads, 1))
        wait = round(float(np.median(alone.busy_ms)) / 2, 1)
        for delay in (0.0, wait) if size > 1 and wait > 0 else (0.0,):
            yield Serving(instances=instances, threads=threads, max_batch=size, max_delay_ms=delay)


def _misses(predicted: Prediction, slo: Slo) -> list[str]:
    """The objectives that a setting misses at the load, by name."""
    missed = [
        name
        for name in ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms")
        if (bound := getattr(slo, name)) is not None and (getattr(predicted, name).value or np.inf) > bound
    ]
    if (predicted.throughput_rps.value or 0.0) < _CARRIED * predicted.load_rps * _tail_allowance():
        missed.append("throughput_rps")
    return missed


def _tail_allowance() -> float:
    """A finite run ends after its last arrival, and its arrivals vary: by about twice the root of their number."""
    return 1 - 2 / np.sqrt(_REQUESTS)


def _percentile_named(slo: Slo) -> str:
    """The percentile that the objectives speak of; p99 where they name none."""
    names = ("latency_p99_ms", "latency_p95_ms", "latency_p50_ms")
    return next((name for name in names if getattr(slo, name) is not None), "latency_p99_ms")


def _rank(predicted: Prediction, slo: Slo) -> tuple[int, float]:
    return len(_misses(predicted, slo)), getattr(predicted, _percentile_named(slo)).value


def _simplest(ranked: Sequence[tuple[Serving, Prediction]], slo: Slo) -> tuple[Serving, Prediction]:
    """Of the settings within a hair of the best, the one with the least of everything."""
    missed, best = _rank(ranked[0][1], slo)
    near = [pair for pair in ranked if _rank(pair[1], slo)[0] == missed and _rank(pair[1], slo)[1] <= best * _HAIR]
    return min(near, key=lambda pair: (pair[0].max_delay_ms, pair[0].max_batch, pair[0].instances))


def _reason(predicted: Prediction, load: float, slo: Slo) -> str:
    at = f"{load:.4g} requests/s" + ("" if slo.throughput_rps else " (a comfortable share of what it can carry)")
    name = _percentile_named(slo)
    missed = _misses(predicted, slo)
    if missed:
        return f"No setting meets {' and '.join(missed)} at {at}; this one comes closest."
    return f"The lowest predicted {name} at {at}."


def _cost(goal: Goal, load: float, capacity: Figure) -> Figure:
    price = goal.prices.machine_hour_usd
    if price is None:
        return unmeasured("no price given ([prices] machine_hour_usd)")
    served = min(load, capacity.value or load)
    return Figure(
        value=price / 3600 / served * 1e6,
        low=None,
        high=None,
        n=capacity.n,
        method="estimated: the machine's price over the load that it serves",
    )


def _percentile(values_ms: np.ndarray, p: float) -> float:
    return float(np.percentile(values_ms, p)) if len(values_ms) else float("inf")


def _spread(values: Sequence[float], expected: int | None) -> Figure:
    return Figure(
        value=float(np.median(values[:expected])),
        low=float(min(values)),
        high=float(max(values)),
        n=len(values),
        method="predicted: simulated runs of the scheduler with measured service times",
    )
