"""How long does a batch take, by layout and batch size? What a simulated server needs to know of an engine.

A layout is a number of instances (engine processes) with as many threads each. All layouts are loaded at the same
time and take turns in random order, so that they compare. Within a turn one instance runs alone, then all run at once:
side by side they share caches and memory, and a request that meets an idle machine is answered sooner.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack

import numpy as np

from hasten.data.dataset import Arrays, Subset
from hasten.data.feed import feed, one_of_each_shape, sample_for, shape_key
from hasten.measure.base import Arm
from hasten.measure.contention import Watch
from hasten.measure.turns import turn_ms
from hasten.spec.measurement import Figure
from hasten.spec.serving import ServiceTimes, Serving
from hasten.spec.signature import Signature
from hasten.spec.target import Target
from hasten.stats.percentiles import mean

__all__ = ["Open", "batch_sizes", "layouts_for", "measure_service", "shape_keys"]

_ROUNDS = 4
_MOST_RUNS, _FEWEST_RUNS = 12, 2
# A turn of one cell takes about so long.
_TURN_MS = 200.0
# A larger batch that gives less than this more rows a second is not worth a request's wait for company.
_PAYS = 1.03
# Samples that stand for all: distinct ones, because times vary with what is in them and how long they are.
_SAMPLES = 24
_STACKS = 4

Layout = tuple[int, int]
Open = Callable[[Target], AbstractContextManager[Arm]]


def layouts_for(target: Target, cores: int) -> list[Layout]:
    """Return the layouts that use the machine: the variant's own, and one instance for every equal share of the cores.

    `target.threads` 0 stands for all cores.
    """
    own = (1, target.threads)
    shares = [(count, cores // count) for count in range(1, cores + 1) if cores % count == 0]
    already = own if target.threads else (1, cores)
    return [own, *(layout for layout in shares if layout != already)]


def batch_sizes(most: int) -> list[int]:
    """Powers of two up to the largest batch that was proven harmless."""
    return [2**power for power in range(most.bit_length()) if 2**power <= most]


def shape_keys(signature: Signature, data: Subset, most: int = 200) -> list[str]:
    """Return a key for the shapes of each of the first samples: requests with equal keys can share a batch."""
    return [shape_key(sample_for(signature, data, at)) for at in range(min(most, len(data)))]


def measure_service(
    open_arm: Open, target: Target, data: Subset, sizes: Sequence[int], cores: int, watch: Watch, *, seed: int = 0
) -> list[ServiceTimes]:
    """Measure every layout of `target` at every batch size, interleaved. `open_arm` loads the variant for a target.

    Raises `EngineError` where an engine fails.
    """
    rng = np.random.default_rng(seed)
    with ExitStack() as stack:
        groups = {
            layout: [stack.enter_context(open_arm(_one(target, layout))) for _ in range(layout[0])]
            for layout in layouts_for(target, cores)
        }
        first = next(iter(groups.values()))[0]
        slots = _put(first.signature, groups, data, sizes)
        typical = _paying(first, slots)
        cells = [_Cell(layout, size, arms) for layout, arms in groups.items() for size in typical]
        with ThreadPoolExecutor(max(len(arms) for arms in groups.values())) as pool:
            for _ in range(_ROUNDS):
                for at in rng.permutation(len(cells)):
                    watch.round_is_quiet()
                    size = cells[at].size
                    runs = int(np.clip(_TURN_MS / typical[size], _FEWEST_RUNS, _MOST_RUNS))
                    cells[at].run(pool, rng.choice(slots[size], runs).tolist())
    return [cell.times() for cell in cells]


def _paying(arm: Arm, slots: dict[int, list[int]]) -> dict[int, float]:
    """The batch sizes worth measuring, each with a typical time in ms: as long as doubling gives more rows a second."""
    typical: dict[int, float] = {}
    for size in sorted(slots):
        time = float(np.median(turn_ms(arm, slots[size][:_STACKS], warmup=1)))
        if typical and size / time < _PAYS * max(done / one for done, one in typical.items()):
            break
        typical[size] = max(time, 1e-6)
    return typical


class _Cell:
    """One layout at one batch size."""

    def __init__(self, layout: Layout, size: int, arms: Sequence[Arm]) -> None:
        self.size = size
        self._layout = layout
        self._arms = arms
        self._alone: list[float] = []
        self._busy: list[list[float]] = []

    def run(self, pool: ThreadPoolExecutor, slots: list[int]) -> None:
        alone = turn_ms(self._arms[0], slots)
        self._alone += alone
        if len(self._arms) == 1:
            self._busy.append(alone)
        else:
            self._busy.append(
                [one for times in pool.map(self._time, self._arms, [slots] * len(self._arms)) for one in times]
            )

    def _time(self, arm: Arm, slots: list[int]) -> list[float]:
        return turn_ms(arm, slots)

    def times(self) -> ServiceTimes:
        return ServiceTimes(
            instances=self._layout[0],
            threads=self._layout[1],
            batch=self.size,
            busy_ms=tuple(round(one, 4) for part in self._busy for one in part),
            alone_ms=tuple(round(one, 4) for one in self._alone),
            rows_per_s=self._rate(),
        )

    def _rate(self) -> Figure:
        """Rows in a second with all instances busy, from the mean time of each round."""
        time = mean([float(np.mean(part)) for part in self._busy])
        if time.value is None or time.low is None or time.high is None:
            return time
        rows = self.size * len(self._arms) * 1e3
        method = f"{len(self._arms)} busy instances, batches of {self.size}"
        return Figure(
            value=rows / time.value, low=rows / time.high, high=rows / max(time.low, 1e-9), n=time.n, method=method
        )


def _put(
    signature: Signature, groups: dict[Layout, list[Arm]], data: Subset, sizes: Sequence[int]
) -> dict[int, list[int]]:
    """Give every arm the same batches; slots by batch size. Only samples of one shape can be stacked: the commonest."""
    positions = np.linspace(0, len(data) - 1, min(_SAMPLES, len(data))).astype(int)
    samples = [sample_for(signature, data, int(at)) for at in positions]
    commonest = Counter(shape_key(sample) for sample in samples).most_common(1)[0][0]
    alike = [sample for sample in samples if shape_key(sample) == commonest]
    slots: dict[int, list[int]] = {}
    arms = [arm for group in groups.values() for arm in group]
    number = 0
    for size in sizes:
        stacks = [[sample] for sample in samples] if size == 1 else [_turned(alike, n, size) for n in range(_STACKS)]
        slots[size] = list(range(number, number + len(stacks)))
        for stack in stacks:
            for arm in arms:
                arm.put(number, feed(signature, stack))
            number += 1
    for arm in arms:
        # Engines that compile for a shape when they first see it have that behind them in a service.
        turn_ms(arm, [slots[1][place] for place in one_of_each_shape(samples)] if 1 in slots else [], warmup=0)
    return slots


def _turned(samples: Sequence[Arrays], start: int, size: int) -> list[Arrays]:
    """`size` samples from `start` on, beginning anew at the end."""
    return [samples[(start * size + step) % len(samples)] for step in range(size)]


def _one(target: Target, layout: Layout) -> Target:
    """What one instance runs on, as the server will have it."""
    return Serving(instances=layout[0], threads=layout[1]).one(target)
