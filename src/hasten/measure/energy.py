"""Energy per prediction: both sides take turns in bursts that are long enough for the counter.

As with latency, what moves slowly (temperature, clock, load by others) moves both sides, so that the ratio of a round
is worth more than its absolute figures. A burst is as short as the source of joules allows, and there are few rounds:
the whole meter takes a second or two, and nothing at all where nothing can be read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from hasten.data.feed import feed, sample_for
from hasten.measure.base import Arm, Pair
from hasten.measure.power import Absent, Nvml, Source, find_source
from hasten.measure.turns import turn_ms
from hasten.spec.measurement import Figure, unmeasured
from hasten.spec.progress import Progress
from hasten.spec.slo import Prices
from hasten.spec.target import Target
from hasten.stats.percentiles import mean
from hasten.stats.ratio import speedup

__all__ = ["EnergyMeter", "why_no_energy"]

# A ratio needs 6 rounds; more of them only where latency is given many.
_FEWEST, _MOST, _SHARE = 6, 12, 4
_SLOTS = 4
_MOST_RUNS = 2000
Find = Callable[[Target, Prices], Source | Absent]


class EnergyMeter:
    """Gives `energy_per_prediction_j` and `energy_gain`, the reference's energy over the candidate's, paired."""

    name = "energy"
    names = ("energy_per_prediction_j", "energy_gain")

    def __init__(self, find: Find = find_source) -> None:
        self._find = find

    def measure(self, pair: Pair) -> dict[str, Figure]:
        """Interleave bursts; unmeasured, with the reason and what to do about it, where no joules can be read."""
        source = self._find(pair.target, pair.prices)
        if isinstance(source, Absent):
            return dict.fromkeys(self.names, unmeasured(str(source)))
        alone = isinstance(source, Nvml)
        reference, candidate, contended = _rounds(pair, source, alone=alone)
        energy = _mean(candidate, source, contended)
        if alone or energy.value is None:
            reason = "the reference runs beside the GPU, which its counter does not see" if alone else energy.reason
            return {"energy_per_prediction_j": energy, "energy_gain": unmeasured(reason or "not measured")}
        gain = speedup(reference, candidate, seed=pair.plan.seed)
        if gain.value is not None:
            gain = msgspec.structs.replace(gain, method=f"{energy.method}; {gain.method}")
        return {"energy_per_prediction_j": energy, "energy_gain": gain}


def why_no_energy(prices: Prices, find: Find = find_source) -> Absent | None:
    """Say why energy can neither be measured nor estimated for models on this machine's processor, or return None."""
    found = find(Target(engine="onnxruntime"), prices)
    return found if isinstance(found, Absent) else None


def _rounds(pair: Pair, source: Source, *, alone: bool) -> tuple[list[float], list[float], int]:
    """Joules per prediction of both sides by round, and how many rounds began on a contended machine."""
    rng = np.random.default_rng(pair.plan.seed)
    count = int(np.clip(pair.plan.rounds // _SHARE, _FEWEST, _MOST))
    sides = [pair.candidate] if alone else [pair.reference, pair.candidate]
    bursts = [_burst(arm, pair, source) for arm in sides]
    spent: list[list[float]] = [[] for _ in sides]
    contended = 0
    for number in range(count):
        contended += not pair.watch.round_is_quiet()
        for side in rng.permutation(len(sides)):
            spent[side].append(_joules(sides[side], bursts[side], source))
        pair.listener(Progress(stage=f"{pair.label}: energy", done=number + 1, total=count))
    return spent[0], spent[-1], contended


def _burst(arm: Arm, pair: Pair, source: Source) -> list[list[int]]:
    """The slots of one burst, in as many parts as the source wants readings; long enough for the source by a pilot."""
    count = min(_SLOTS, len(pair.data))
    for slot, position in enumerate(np.linspace(0, len(pair.data) - 1, count).astype(int)):
        arm.put(slot, feed(arm.signature, [sample_for(arm.signature, pair.data, int(position))]))
    pilot_s = float(np.mean(turn_ms(arm, list(range(count))))) / 1e3
    # Whole cycles through the samples, so that each burst has the same work.
    cycles = math.ceil(source.burst_s / source.readings / max(pilot_s * count, 1e-9))
    part = list(range(count)) * int(np.clip(cycles, 1, _MOST_RUNS // count))
    return [part] * source.readings


def _joules(arm: Arm, burst: Sequence[Sequence[int]], source: Source) -> float:
    """Joules per prediction over one burst, after an untimed run that takes the caches back from the other side."""
    arm.time_ms(burst[0][:1])
    before = source.joules(arm)
    after = before
    for part in burst:
        arm.time_ms(part)
        after = source.joules(arm)
    arm.rest()
    return (after - before) / sum(len(part) for part in burst)


def _mean(joules: Sequence[float], source: Source, contended: int) -> Figure:
    if min(joules) <= 0:
        return unmeasured(f"{source.method}: the counter stood still during a burst of {source.burst_s:g} s")
    figure = mean(joules)
    words = f"; {contended} of {len(joules)} rounds on a contended machine" if contended else ""
    low = None if figure.low is None else max(0.0, figure.low)
    return msgspec.structs.replace(figure, low=low, method=source.method + words)
