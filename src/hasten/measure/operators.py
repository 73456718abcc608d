"""Where the time of loaded variants goes, by operator type, from their engines' own profilers and in the same rounds.

For people to look at, after everything that is claimed: a profiler slows what it watches, so these times explain a
speedup and prove none. `hasten.profile` looks closer, at single operators under a roofline.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from hasten.clock import Clock
from hasten.data.dataset import Subset
from hasten.data.feed import feed, sample_for
from hasten.errors import EngineError, EngineRunError
from hasten.measure.base import Arm
from hasten.spec.evidence import KindTime, OperatorTimes
from hasten.spec.measurement import unmeasured
from hasten.spec.profile import Observation
from hasten.stats.percentiles import percentile, values_needed

__all__ = ["operator_times", "without_times"]

# A median with an interval needs so many rounds. Each loads a profiled copy afresh, which some engines take long for.
_ROUNDS = values_needed(50)
_RUNS = 5
_SAMPLES = 5

# Microseconds of a prediction by operator type, and how many operators of it ran.
Sums = dict[str, tuple[float, int]]


def operator_times(
    arms: Mapping[str, Arm], data: Subset, *, clock: Clock, within_s: float, seed: int = 0
) -> tuple[OperatorTimes, ...]:
    """Profile `arms` (by variant) in turn on samples of `data`, and return one entry each, in the same order.

    Never raises for what an engine does: its entry says why it has no times. What would take longer than `within_s`
    seconds, by its time to load or by the rounds so far, is given up, and its entry says so.
    """
    rng, started = np.random.default_rng(seed), clock.now()
    failed = {name: _slow(within_s) for name, arm in arms.items() if arm.load_ms * _ROUNDS / 1e3 > within_s}
    seen: dict[str, list[Sums]] = {name: [] for name in arms}
    for name in arms.keys() - failed.keys():
        try:
            _put(arms[name], data)
        except EngineError as error:
            failed[name] = error.message
    for number in range(_ROUNDS):
        spent = clock.now() - started
        if number and spent * (number + 1) / number > within_s:
            break
        for name in rng.permutation([name for name in arms if name not in failed]):
            try:
                seen[name].append(_sums(arms[name].profile(_chosen(rng, data), warmup=1)))
                arms[name].rest()
            except EngineError as error:
                failed[name] = error.message
    return tuple(
        without_times(name, failed[name] if name in failed else _slow(within_s))
        if len(rounds) < _ROUNDS
        else _summed_up(name, rounds)
        for name, rounds in seen.items()
    )


def without_times(variant: str, reason: str) -> OperatorTimes:
    """The entry of a variant whose times are not known, and why."""
    return OperatorTimes(variant=variant, total_us=unmeasured(reason), reason=reason)


def _put(arm: Arm, data: Subset) -> None:
    for slot in range(min(_SAMPLES, len(data))):
        arm.put(slot, feed(arm.signature, [sample_for(arm.signature, data, slot)]))


def _chosen(rng: np.random.Generator, data: Subset) -> list[int]:
    return [int(slot) for slot in rng.choice(min(_SAMPLES, len(data)), _RUNS)]


def _sums(observation: Observation) -> Sums:
    """Means over the runs of one round, joined by operator type. Raises `EngineRunError` where nothing was noted."""
    runs = 1 if observation.averaged else len(observation.wall_us)
    found: defaultdict[str, list[float]] = defaultdict(list)
    for item in observation.operators:
        found[item.kind].append(sum(item.us) / max(1, runs))
    if not any(sum(times) for times in found.values()):
        raise EngineRunError("The engine's profiler noted no operator.")
    return {kind: (sum(times), sum(1 for us in times if us > 0)) for kind, times in found.items() if sum(times)}


def _slow(within_s: float) -> str:
    return f"Loading it {_ROUNDS} times under the profiler takes longer than {within_s:.0f} s; see: hasten profile."


def _summed_up(variant: str, rounds: Sequence[Sums]) -> OperatorTimes:
    kinds = {kind for one in rounds for kind in one}
    times = {kind: [one.get(kind, (0.0, 0))[0] for one in rounds] for kind in kinds}
    return OperatorTimes(
        variant=variant,
        total_us=percentile([sum(us for us, _ in one.values()) for one in rounds], 50),
        kinds=tuple(
            KindTime(
                kind=kind,
                count=max(one.get(kind, (0.0, 0))[1] for one in rounds),
                time_us=percentile(times[kind], 50),
            )
            for kind in sorted(kinds, key=lambda kind: (-float(np.median(times[kind])), kind))
        ),
    )
